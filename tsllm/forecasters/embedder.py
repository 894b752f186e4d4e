"""Series as features: an sktime transformer for any classifier, regressor or clusterer."""

from functools import partial
from typing import Any, ClassVar

import pandas as pd
from sktime.transformations.base import BaseTransformer

from tsllm.arguments import check_arguments, check_names, document_parameters
from tsllm.backbone import DEFAULT_BACKBONE, load_backbone
from tsllm.embeddings import open_store
from tsllm.forecasters.frames import check_input, split_series
from tsllm.forecasters.inputs import read_container, refused_container
from tsllm.forecasters.parameters import LIMITS, SHARED
from tsllm.prompts.writer import DEFAULT_TEMPLATE, PromptWriter, check_prompts_fit


@check_names
@partial(document_parameters, shared=SHARED)
class LastTokenEmbedder(BaseTransformer):
    """Turn each series into a language model's embedding of its description.

    The prompt branch of TimeCMA as a feature extractor: each variable of a series is written as a
    text (dates, values, trend), and the state of the text's last token in the last layer is its
    embedding. Nothing is trained, and each embedding is computed once and kept in the embedding
    store.

    Each series of a panel becomes one row, so any scikit-learn estimator can follow, in sktime's
    pipelines or in scikit-learn's.

    The arguments that matter most: ``backbone``, ``context_length``, ``value_format`` and
    ``embedding_store``.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sktime.datasets import load_unit_test
    >>> from tsllm import LastTokenEmbedder
    >>> X, y = load_unit_test(split="train")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     embedder = LastTokenEmbedder("random:gpt2?hidden=16&heads=2", embedding_store=folder)
    ...     features = embedder.fit_transform(X)
    ...     labels = (embedder * LogisticRegression()).fit(X, y).predict(X)
    >>> features.shape, len(labels)
    ((20, 16), 20)

    Parameters
    ----------
    backbone : str, default="sentence-transformers/all-MiniLM-L6-v2"
        The language model: a Hugging Face id, a local directory, or ``"random:..."``.
    context_length : int or None, default=None
        Steps of each series that are written, its last ones. None: all.
    value_format : {"window", "series", "int"}, default="window"
        Form of the values. "window": standardised over the steps that are written, times 100 and
        rounded. "series": likewise over the whole series. "int": the whole part of the
        series-standardised value.

    See Also
    --------
    TimeCMAForecaster

    References
    ----------
    Liu et al., "TimeCMA: Towards LLM-Empowered Multivariate Time Series Forecasting via
    Cross-Modality Alignment", AAAI 2025, arXiv 2406.01638, section 3.2.
    """

    _tags: ClassVar[dict[str, Any]] = {
        "authors": ["tsllm developers"],
        "maintainers": ["tsllm developers"],
        "python_dependencies": ["torch", "transformers"],
        "scitype:transform-input": "Series",
        "scitype:transform-output": "Primitives",
        "scitype:transform-labels": "None",
        "scitype:instancewise": True,
        "X_inner_mtype": ["pd.DataFrame", "pd-multiindex", "pd_multiindex_hier"],
        "y_inner_mtype": "None",
        "capability:multivariate": True,
        "capability:missing_values": True,
        "capability:unequal_length": True,
        "capability:categorical_in_X": False,
        "fit_is_empty": True,
        "transform-returns-same-time-index": False,
    }

    def __init__(
        self,
        backbone: str = DEFAULT_BACKBONE,
        *,
        backbone_layers: int | None = None,
        context_length: int | None = None,
        prompt_template: str = DEFAULT_TEMPLATE,
        value_format: str = "window",
        embedding_store: Any = None,
        freq: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        verbose: int = 0,
    ) -> None:
        self.backbone = backbone
        self.backbone_layers = backbone_layers
        self.context_length = context_length
        self.prompt_template = prompt_template
        self.value_format = value_format
        self.embedding_store = embedding_store
        self.freq = freq
        self.device = device
        self.dtype = dtype
        self.verbose = verbose
        super().__init__()

    def reset(self) -> "LastTokenEmbedder":
        """Reset everything but the parameters, as `fit` does first.

        Returns
        -------
        self
        """
        # A pipeline of scikit-learn 1.9 sets a context on the step that it fits and deletes it
        # afterwards; sktime's own reset would delete it before.
        context = vars(self).get("_parent_callback_ctx")
        super().reset()
        if context is not None:
            self._parent_callback_ctx = context
        return self

    def _check_X_y(self, X: Any = None, y: Any = None, return_metadata: bool = False) -> Any:  # noqa: N802 (sktime's name)
        if X is not None:
            X = read_container(X, "X")
            check_input(X, freq=self.freq, at_least=1, argument="X")
        try:
            return super()._check_X_y(X, y, return_metadata)
        except TypeError as error:  # pages of text that name neither column nor row
            raise refused_container(error, X=X) from error

    def _transform(self, X: pd.DataFrame, y: Any = None) -> pd.DataFrame:
        """Embed every series of a panel, one row each."""
        given = self.get_params(deep=False)
        check_arguments(type(self), [*given], given, LIMITS)
        writer = PromptWriter(self.prompt_template, self.value_format)
        most = self.context_length
        backbone = load_backbone(
            self.backbone, layers=self.backbone_layers, device=self.device, dtype=self.dtype
        )
        contexts = split_series(X, freq=self.freq, argument="X")
        prompts: list[str] = []
        for context in contexts:
            steps = min(len(context), most or len(context))
            prompts += writer.write(context, [len(context) - steps], steps, freq=self.freq)
        check_prompts_fit(prompts, backbone)
        store = open_store(self.embedding_store)
        vectors = store.encode(prompts, backbone, progress=self.verbose > 0)
        index = None  # of a lone series: sktime's own
        if isinstance(X.index, pd.MultiIndex):
            index = pd.Index([context.series_id for context in contexts])
            index.names = X.index.names[:-1]
        return pd.DataFrame(
            vectors.reshape(len(contexts), -1).numpy(),
            index=index,
            columns=[f"{name}_{k}" for name in X.columns for k in range(vectors.shape[1])],
        )

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Return small settings for sktime's tests; there is one ``parameter_set``."""
        tiny = "random:gpt2?hidden=8&layers=1&heads=2"
        return [
            {"backbone": tiny},
            {
                "backbone": tiny,
                "context_length": 5,
                "value_format": "series",
                "prompt_template": "{values}",
            },
        ]
