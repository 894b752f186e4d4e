"""HTML: self-contained pages with pictures and tables, and fragments for notebooks."""
