"""Covariates: values known beside a series, and their effects on the series."""

from tsllm.covariates.columns import CovariateColumns
from tsllm.covariates.effects import Covariates, fit_covariates

__all__ = ["CovariateColumns", "Covariates", "fit_covariates"]
