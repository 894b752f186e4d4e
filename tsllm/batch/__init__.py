"""Batch forecasting: any number of series from Parquet parts to Parquet parts, block by block.

`predict_batch` (`job`) plans the blocks once (`planning`) and writes them down (`manifest`),
forecasts each with the same function as everything else (`worker`), in this process or on Ray's
workers (`ray_engine`), and goes on where it was after it has been killed.
"""

from tsllm.batch.job import BatchResult, predict_batch
from tsllm.batch.ray_engine import Workers

__all__ = ["BatchResult", "Workers", "predict_batch"]
