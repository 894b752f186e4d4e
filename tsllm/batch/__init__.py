"""Batch forecasting: any number of series from Parquet parts to Parquet parts, block by block.

`predict_batch` (`job`) plans the blocks (`planning`), writes the plan down (`manifest`) and
forecasts each block (`worker`), in this process or with Ray's workers (`ray_engine`). A job that
was killed continues when it is started again.
"""

from tsllm.batch.job import BatchResult, predict_batch
from tsllm.batch.ray_engine import Workers

__all__ = ["BatchResult", "Workers", "predict_batch"]
