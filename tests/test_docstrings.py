"""Docstrings of public names: verbs first, and the defaults that the signatures have."""

import importlib
import inspect
import pkgutil
import re

import pytest

import tsllm

#: The verbs that the one-line docstring of a public function, method or property begins with.
VERBS = """
Accept Accumulate Adapt Add Advance Align Append Apply Arrange Assemble Assign Attach Attend
Average Begin Build Cache Calibrate Call Centre Change Check Choose Clear Clip Close Cluster
Collect Combine Compare Compile Complete Compute Concatenate Connect Continue Convert Copy
Correct Count Create Cut Decide Decode Decompose Define Delete Derive Describe Detach Detect
Determine Difference Discard Divide Download Draw Drop Embed Encode Enumerate Estimate Evaluate
Exclude Expand Export Extend Extract Fill Filter Find Finish Fit Flip Forecast Format Forward
Freeze Gather Generate Get Group Hash Import Infer Initialise Integrate Interpolate Invert Iterate
Join Judge Keep Learn Limit List Load Locate Lock Log Make Map Mark Mask Match Measure Merge
Move Name Normalise Observe Open Order Pack Pad Parse Partition Pass Pick Place Plan Plot Pool
Predict Prepare Preprocess Pretrain Print Produce Project Prune Raise Rank Read Rebuild
Recalibrate Recognise Reconstruct Record Reduce Register Release Remove Rename Render Repeat
Replace Report Resample Reset Reshape Resolve Restore Resume Retrieve Return Reverse Roll Round Run
Sample Save Scale Scatter Score Search Select Send Separate Serialise Set Shift Shorten Show
Shuffle Simulate Skip Slice Smooth Solve Sort Split Stack Standardise Start Stop Store Stream
Subtract Sum Summarise Tokenise Track Train Transform Translate Undo Unpack Update Use Validate
Verify Warn Weigh Widen Wrap Write Yield
"""


def modules():
    """Import every module of the library."""
    for found in pkgutil.walk_packages(tsllm.__path__, "tsllm."):
        if not found.name.endswith("__main__") and not found.name.startswith("tsllm.cli"):
            yield importlib.import_module(found.name)


def is_private(name):
    return name.startswith("_")


def public_members(module):
    """Yield (dotted name, object) of the public classes, functions and methods of a module."""
    for name, member in vars(module).items():
        if is_private(name) or getattr(member, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(member):
            yield f"{module.__name__}.{name}", member
            for inner, value in vars(member).items():
                if not is_private(inner):
                    value = value.fget if isinstance(value, property) else value
                    value = getattr(value, "func", value)  # cached properties
                    value = getattr(value, "__func__", value)  # class and static methods
                    if inspect.isfunction(value):
                        yield f"{module.__name__}.{name}.{inner}", value
        elif inspect.isfunction(inspect.unwrap(member)):
            yield f"{module.__name__}.{name}", member


MEMBERS = dict(found for module in modules() for found in public_members(module))
FUNCTIONS = {name: member for name, member in MEMBERS.items() if not inspect.isclass(member)}


def own_docstring(member):
    """Return the docstring that stands in the code; ruff refuses members that have none."""
    return inspect.cleandoc(member.__doc__ or "")


def documented_parameters(docstring):
    """Yield (names, what stands behind the colon) of a numpydoc section `Parameters`."""
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\w[^\n]*\n-+\n|\Z)", docstring, re.M | re.S)
    for line in re.findall(r"^\S.*$", section.group(1), re.M) if section else ():
        names, _, kind = line.partition(" : ")
        yield [name.strip().lstrip("*") for name in names.split(",")], kind


def defaults_of(member):
    """Return the default of each parameter that has one, as the signature writes it."""
    try:
        signature = inspect.signature(member)
    except (TypeError, ValueError):  # a class without a signature of its own
        return {}
    return {
        name: parameter.default
        for name, parameter in signature.parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }


def test_the_first_line_of_a_public_function_begins_with_a_verb():
    verbs = set(VERBS.split())
    wrong = {}
    for name, member in FUNCTIONS.items():
        docstring = own_docstring(member)
        first = re.match(r"[\w']*", docstring).group(0)
        if docstring and first not in verbs:
            wrong[name] = docstring.split("\n")[0]
    assert not wrong, "\n".join(f"{name}: {line}" for name, line in wrong.items())


@pytest.mark.parametrize("kind", ["missing", "different"])
def test_the_documented_default_of_a_parameter_is_that_of_the_signature(kind):
    wrong = []
    for name, member in MEMBERS.items():
        defaults = defaults_of(member)
        for names, described in documented_parameters(own_docstring(member)):
            for parameter in set(names) & defaults.keys():
                said = re.search(r"default=(.*?)\s*$", described)
                if said is None:
                    if kind == "missing":
                        wrong.append(f"{name}({parameter}): no default={defaults[parameter]!r}")
                elif kind == "different" and not _same(
                    said.group(1), defaults[parameter], vars(inspect.getmodule(member))
                ):
                    wrong.append(f"{name}({parameter}): {said.group(1)}, {defaults[parameter]!r}")
    assert not wrong, "\n".join(wrong)


def test_every_parameter_of_a_public_class_is_documented():
    wrong = []
    for name in tsllm.__all__:
        member = getattr(tsllm, name)
        if inspect.isclass(member):
            told = {
                parameter
                for names, _ in documented_parameters(inspect.getdoc(member))
                for parameter in names
            }
            missing = [p for p in inspect.signature(member).parameters if p not in told]
            wrong += [f"{name}({parameter})" for parameter in missing]
    assert not wrong


def test_the_help_of_an_estimator_opens_with_an_example_and_the_arguments_that_matter():
    wrong = []
    for name in tsllm.__all__:
        member = getattr(tsllm, name)
        if not (inspect.isclass(member) and hasattr(member, "get_params")):
            continue
        docstring = inspect.getdoc(member)
        head, _, rest = docstring.partition("\nExamples\n")
        told = re.search(r"^The arguments that matter most: (.*?)\.$", head, re.M | re.S)
        named = re.findall(r"``(\w+)``", told.group(1)) if told else []
        parameters = inspect.signature(member).parameters
        known = [one for one in named if one in parameters]
        if not (rest and "\nParameters\n" not in head and 3 <= len(known) <= 5):
            wrong.append(f"{name}: {named}")
    assert not wrong


def _same(written, default, names):
    """Return whether a default is written as Python writes it, or by its public name."""
    try:
        value = eval(written, dict(names))
        return value == default or str(default) == "<factory>"  # a field of a dataclass
    except (NameError, SyntaxError):
        return written in {repr(default), getattr(default, "__name__", None), str(default)}
