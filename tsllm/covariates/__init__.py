"""Covariates: what is known beside a series, and what it says about the series' values."""

from tsllm.covariates.columns import CovariateColumns
from tsllm.covariates.effects import Covariates, fit_covariates

__all__ = ["CovariateColumns", "Covariates", "fit_covariates"]
