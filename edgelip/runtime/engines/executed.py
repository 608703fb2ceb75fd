"""Where and in which precision a model's convolutions and products run, held against what is claimed.

As placed when a model is loaded, and as the profile of one run shows it.
"""

from __future__ import annotations

import json
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

from edgelip.runtime.errors import BundleError

_PRODUCTS = ("Conv", "Gemm", "MatMul", "Attention", "LSTM", "GRU", "Einsum", "FullyConnected")  # in names of kernels
_BY_TYPE = {  # names of ONNX Runtime, then of OpenVINO
    "float": "fp32", "float16": "fp16", "bfloat16": "bf16", "int8": "int8", "uint8": "int8",
    "f32": "fp32", "f16": "fp16", "bf16": "bf16", "i8": "int8", "u8": "int8",
}  # fmt: skip
_INTEGER_KERNELS = ("QLinear", "QGemm", "QAttention", "Integer", "DynamicQuantize")  # some take float and round it


class Product(NamedTuple):
    """One kernel that multiplies. provider: what ran it, None where an engine has but one; precision: as of a model."""

    kernel: str
    provider: Optional[str]
    precision: str


def nodes_by_provider(subgraphs: Sequence[Any]) -> Dict[str, List[str]]:
    """Operators of the nodes that each provider got, from get_provider_graph_assignment_info()."""
    found: Dict[str, List[str]] = {}
    for subgraph in subgraphs:
        found.setdefault(str(subgraph.ep_name), []).extend(str(node.op_type) for node in subgraph.get_nodes())
    return found


def refuse_fallback(nodes: Mapping[str, Sequence[str]], provider: str, *, allowed: bool) -> Dict[str, str]:
    """What `settings` say of where the nodes run.

    Raises BundleError if convolutions or products run elsewhere than on `provider` and that was not allowed.
    """
    total = sum(len(operators) for operators in nodes.values())
    strays = [
        operator for name, operators in nodes.items() if name != provider for operator in operators
        if multiplies(operator)
    ]  # fmt: skip
    here = f"{len(nodes.get(provider, ()))} of {total}"
    if not strays:
        return {"nodes_on_provider": here}
    kinds = ", ".join(f"{strays.count(kind)} {kind}" for kind in dict.fromkeys(strays))
    if not allowed:
        raise BundleError(
            f"{provider} takes {here} nodes; {kinds} fall back to the CPU. Use another precision or engine, or accept "
            "it: --option fallback=allow."
        )
    return {"nodes_on_provider": here, "fallback": f"{kinds} run on the CPU, {here} nodes on {provider}"}


def products_in_profile(profile: str) -> List[Product]:
    """The products of one run from ONNX Runtime's profile of it; none where a provider runs its nodes as one whole.

    Raises ValueError for a text that is no such profile.
    """
    found = []
    for event in json.loads(profile):
        if event.get("cat") == "Node" and str(event.get("name", "")).endswith("_kernel_time"):
            kernel, details = str(event["args"].get("op_name")), event["args"]
            if multiplies(kernel):
                found.append(Product(kernel, details.get("provider"), _precision(kernel, details)))
    return found


def multiplies(kernel: str) -> bool:
    return any(word in kernel for word in _PRODUCTS)


def precision_of_type(name: str) -> str:
    """'fp32' of 'float' or 'f32'; the name itself for a type that is none of a model's."""
    return _BY_TYPE.get(name, name)


def fallback_of(products: Sequence[Product], *, provider: Optional[str], precision: str) -> Optional[str]:
    """What ran on another provider, or in another precision, than claimed; None if nothing did.

    A file that is called int8 or fp16 may keep some layers exact, so that one product in its precision is enough here:
    the share of its arithmetic is what the coverage gate of the export counts. A file in fp32 has no such excuse.
    """
    total = len(products)
    strays = [product for product in products if provider is not None and product.provider != provider]
    if strays:
        kinds: Dict[str, int] = {}
        for stray in strays:
            kind = f"{stray.kernel} on {stray.provider}"
            kinds[kind] = kinds.get(kind, 0) + 1
        told = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        return f"{len(strays)} of {total} products ran elsewhere than on {provider}: {told}"
    others = [product.precision for product in products if product.precision != precision]
    if others and (len(others) == total or precision == "fp32"):
        ran_in = ", ".join(sorted(set(others)))
        return f"{precision} is claimed, but {len(others)} of {total} products ran in {ran_in}"
    return None


def _precision(kernel: str, details: Any) -> str:
    if any(word in kernel for word in _INTEGER_KERNELS):
        return "int8"
    types = [name for value in details.get("input_type_shape", ())[:1] for name in value]
    return precision_of_type(types[0]) if types else "unknown"
