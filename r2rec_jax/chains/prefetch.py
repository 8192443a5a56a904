"""Memory prefetching for compiled loops with random access."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


@intrinsic
def fetch(_, array, first, second):  # noqa: ARG001 - indices of any integer type
    """Prefetches the cache lines of array[first] and array[second] without waiting for them.

    There are two indices because neighbours often lie on two lines. Indices out of bounds are harmless.
    """

    def codegen(context, builder, signature, arguments):
        kind = signature.args[0]
        array, *places = arguments
        layout = context.make_array(kind)(context, builder, array)
        stride, pointer, word = builder.extract_value(layout.strides, 0), ir.PointerType(), ir.IntType(32)
        prefetch = ir.FunctionType(ir.VoidType(), (pointer, word, word, word))
        prefetch = cgutils.get_or_insert_function(builder.module, prefetch, "llvm.prefetch.p0")
        for place in places:
            address = builder.add(builder.ptrtoint(layout.data, stride.type), builder.mul(stride, place))
            read, all_caches, data = word(0), word(3), word(1)
            builder.call(prefetch, (builder.inttoptr(address, pointer), read, all_caches, data))
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp), codegen
