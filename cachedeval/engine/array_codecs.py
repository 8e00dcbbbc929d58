"""The codecs of arrays and tables: NumPy, pandas, PyArrow, mlx and PyTorch.

Arrays are stored as `.npy` files, without pickle, and tables as Arrow IPC streams. A value that its
format would change (an array of objects, a tensor on a GPU) raises an error that says what to pass.
"""

# Lazy imports: each package is imported when one of its types is first met.

import json
from collections.abc import Callable
from functools import cache
from io import BytesIO
from typing import Any

from cachedeval.engine.errors import EncodingError
from cachedeval.engine.process import importing

__all__ = ["codecs_of"]

_Codec = tuple[str, Callable[[Any], Any], Callable[[Any], Any]]


@cache
def codecs_of(package: str) -> dict[type, _Codec]:
    """Return the codecs of a package's types: for each type its codec's name and functions.

    Raises:
        ImportError: the package is not installed.
    """
    with importing():
        return _TABLES[package]()


# NumPy.


def _of_numpy() -> dict[type, _Codec]:
    import numpy as np

    return {
        np.ndarray: ("numpy.ndarray", _to_npy, _from_npy),
        np.generic: ("numpy.generic", lambda value: _to_npy(np.asarray(value)), _scalar),
    }


def _to_npy(array: Any) -> tuple[bytes, bytes]:
    """Return the two parts of a `.npy` file: the header and the elements."""
    from numpy.lib import format as npy

    dtype = array.dtype
    # A long double has bytes of no value, and another size on other machines.
    if dtype.hasobject or dtype.metadata or dtype.isalignedstruct or dtype.char in "gG":
        raise EncodingError(
            f"an array of dtype {dtype} is not stored: use a dtype of numbers of up to 64 bits, "
            "bytes, strings of a fixed length or times, or pass .tolist()"
        )
    described = npy.header_data_from_array_1_0(array)
    head = BytesIO()
    npy.write_array_header_2_0(head, described)
    # In the order of memory, as the header says, and as a copy: the step may change its array.
    return head.getvalue(), array.tobytes("F" if described["fortran_order"] else "C")


def _from_npy(data: tuple[Any, Any]) -> Any:
    import numpy as np
    from numpy.lib import format as npy

    head = BytesIO(data[0])
    npy.read_magic(head)
    shape, fortran, dtype = npy.read_array_header_2_0(head)
    if dtype.hasobject:
        raise ValueError("an array of objects is never stored")
    flat = np.frombuffer(data[1], dtype) if dtype.itemsize else np.empty(shape, dtype)
    # A copy: the caller may change it, and `frombuffer` keeps the whole record in memory.
    return flat.reshape(shape, order="F" if fortran else "C").copy("K")


def _scalar(data: tuple[Any, Any]) -> Any:
    return _from_npy(data)[()]


# PyArrow and pandas.


def _of_pyarrow() -> dict[type, _Codec]:
    import pyarrow as pa

    return {
        pa.Table: ("pyarrow.Table", _to_ipc, _from_ipc),
        pa.RecordBatch: (
            "pyarrow.RecordBatch",
            lambda batch: _to_ipc(pa.Table.from_batches([batch])),
            lambda data: _one_batch(_from_ipc(data)),
        ),
        pa.ChunkedArray: (
            "pyarrow.ChunkedArray",
            lambda array: _to_ipc(pa.table({"": array})),
            lambda data: _from_ipc(data).column(0),
        ),
        pa.Array: (
            "pyarrow.Array",
            lambda array: _to_ipc(pa.table({"": array})),
            lambda data: _from_ipc(data).column(0).combine_chunks(),
        ),
        pa.Schema: (
            "pyarrow.Schema",
            lambda schema: schema.serialize().to_pybytes(),
            lambda data: pa.ipc.read_schema(pa.py_buffer(data)),
        ),
    }


def _to_ipc(table: Any) -> bytes:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    # In one piece: equal tables in other chunks are equal values.
    table = table.combine_chunks()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def _from_ipc(data: bytes) -> Any:
    import pyarrow as pa

    with pa.ipc.open_stream(pa.py_buffer(data)) as reader:
        return reader.read_all()


def _one_batch(table: Any) -> Any:
    import pyarrow as pa

    batches = table.to_batches()
    if batches:
        return batches[0]
    empty = [pa.array([], field.type) for field in table.schema]
    return pa.RecordBatch.from_arrays(empty, schema=table.schema)


def _of_pandas() -> dict[type, _Codec]:
    import pandas as pd

    return {
        pd.DataFrame: ("pandas.DataFrame", _from_frame, _to_frame),
        pd.Series: (
            "pandas.Series",
            lambda series: (_label(series.name), _from_frame(series.to_frame("values"))),
            lambda data: _to_frame(data[1])["values"].rename(data[0]),
        ),
    }


def _from_frame(frame: Any) -> tuple[str | None, bytes]:
    """Return the frequency of a frame's index and its Arrow stream.

    It is read again at once, as Arrow changes some frames in silence.
    """
    try:
        import pyarrow as pa
    except ImportError:
        raise EncodingError(
            "a pandas DataFrame or Series is stored with Arrow: pip install pyarrow"
        ) from None
    if frame.attrs:
        raise EncodingError(f"the attrs of a pandas object are not stored: {sorted(frame.attrs)}")
    try:
        table = pa.Table.from_pandas(frame)
        metadata = json.loads(table.schema.metadata[b"pandas"])
        for version in ("creator", "pandas_version"):  # no part of the value
            metadata.pop(version, None)
        named = {b"pandas": json.dumps(metadata, sort_keys=True).encode()}
        data = getattr(frame.index, "freqstr", None), _to_ipc(table.replace_schema_metadata(named))
        same = _is_same(frame, _to_frame(data))
    except Exception as error:  # noqa: BLE001  Arrow refuses many kinds of columns
        raise EncodingError(f"Arrow cannot hold this pandas object: {error}") from None
    if not same:
        raise EncodingError(
            "Arrow would change this pandas object: use columns of one type each, with an index "
            "and column names that Arrow knows, or pass .to_dict()"
        )
    return data


def _to_frame(data: tuple[str | None, bytes]) -> Any:
    frame = _from_ipc(data[1]).to_pandas()
    if data[0] is not None:
        frame.index.freq = data[0]
    return frame


def _is_same(one: Any, other: Any) -> bool:
    """Return whether two frames agree in types, labels and values."""
    from pandas import testing

    try:
        testing.assert_frame_equal(
            one, other, check_exact=True, check_index_type=True, check_column_type=True
        )
    except AssertionError:
        return False
    # Missing values of different types count as equal there.
    objects = [n for n, dtype in enumerate(one.dtypes) if dtype.kind == "O"]
    return all(
        type(a) is type(b)
        for n in objects
        for a, b in zip(one.iloc[:, n], other.iloc[:, n], strict=True)
    )


def _label(name: Any) -> Any:
    if name is None or isinstance(name, (str, int, float, tuple)):
        return name
    raise EncodingError(f"the name of a pandas Series is a {type(name).__qualname__}: use a string")


# mlx and PyTorch.


def _of_mlx() -> dict[type, _Codec]:
    import mlx.core as mx

    def to_npy(array: Any) -> tuple[str, tuple[bytes, bytes]]:
        import numpy as np

        name = str(array.dtype).removeprefix("mlx.core.")
        # NumPy has no bfloat16.
        return name, _to_npy(np.array(array.view(mx.uint16) if name == "bfloat16" else array))

    def from_npy(data: tuple[str, tuple[Any, Any]]) -> Any:
        array = mx.array(_from_npy(data[1]))
        return array.view(mx.bfloat16) if data[0] == "bfloat16" else array

    return {mx.array: ("mlx.core.array", to_npy, from_npy)}


def _of_torch() -> dict[type, _Codec]:
    import torch

    def to_npy(tensor: Any) -> tuple[str, tuple[bytes, bytes]]:
        if tensor.requires_grad or tensor.device.type != "cpu" or tensor.layout != torch.strided:
            raise EncodingError(
                "a tensor is stored without its gradient, from the CPU, and dense: pass "
                ".detach().cpu() or .to_dense()"
            )
        name = str(tensor.dtype).removeprefix("torch.")
        plain = tensor.resolve_conj().resolve_neg()
        return name, _to_npy((plain.view(torch.int16) if name == "bfloat16" else plain).numpy())

    def from_npy(data: tuple[str, tuple[Any, Any]]) -> Any:
        tensor = torch.from_numpy(_from_npy(data[1]))
        return tensor.view(torch.bfloat16) if data[0] == "bfloat16" else tensor

    return {torch.Tensor: ("torch.Tensor", to_npy, from_npy)}


_TABLES: dict[str, Callable[[], dict[type, _Codec]]] = {
    "mlx": _of_mlx,
    "numpy": _of_numpy,
    "pandas": _of_pandas,
    "pyarrow": _of_pyarrow,
    "torch": _of_torch,
}
