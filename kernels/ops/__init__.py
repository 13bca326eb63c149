"""One operation a file; the file's name is the operation's. What it holds:

    a docstring             formula, shapes, dtypes, errors, source
    reference(*inputs)      the same in aten: what runs on a CPU, and what is exported
    OUTPUTS                 how many outputs; 1 where it is not said
    forward(*inputs)        Triton: outputs, then what backward needs
    backward(*slopes, *inputs, *saved)
                            Triton: gradients of the inputs, None for those that have none
    examples(dtype)         inputs at the edges of the regimes: one row, odd sizes, strides, one past a power of two
    typical(dtype)          inputs of a usual size on the device meta, which the table of `hotlap kernels` is about
    cost(*inputs)           bytes and FLOPs of each kernel of builds
    builds(dtype, target)   its kernels in the default settings of that architecture at the typical size, for compiling ahead of time

Statistics and sums are in fp32 whatever the inputs are. Rows, batch and sequence length are never constexpr; offsets are 64 bits wide.
"""
