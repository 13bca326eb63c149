"""One operation a file; the file's name is the operation's. What a file holds:

    a docstring             formula, shapes, dtypes, errors, source
    reference(*inputs)      the outputs in aten: what runs on a CPU, and what is exported
    RETURNS                 names of what forward returns: the outputs, then what only backward
                            needs
    OUTPUTS                 how many of these are outputs; 1 where it is not said
    forward(*inputs)        Triton: a tuple as RETURNS says, none of it a view of another or of an
                            input (torch.library asks for that)
    results(*inputs)        forward's whole tuple in aten, where it returns more than outputs
    check(...)              raises Unsupported, by shapes and dtypes alone; its parameters are some
                            of forward's, by name
    GRADIENTS               inputs that have a gradient
    MUTATES                 inputs that forward changes in place; none where it is not said
    AUTOCAST                how torch.autocast is followed (library.autocast_inputs); "widest" where
                            it is not said
                            (an input of forward that is called slopes says whether forward is to
                              make gradients; library.py sets it)
    backward(...)           Triton: a tuple of their gradients. Its parameters say by name what it
                            needs, in this order: d + an output's name, inputs, what forward
                            returned
    examples(dtype)         inputs at the edges of the regimes: one row, odd sizes, strides, one
                            past a power of two
    typical(dtype, count, device="meta", **setting)
                            inputs of a usual size, which the table of `hotlap kernels` is about;
                              count: what changes from call to call (rows, sequence length)
    cost(*inputs)           bytes and FLOPs of each kernel of builds
    builds(dtype, target, **setting)
                            its kernels in the settings of that architecture at the typical size,
                              for compiling ahead of time
    SETTINGS                further settings of typical and builds, such as {"columns": 8192}
    PATTERNS                forms of it in models, which `hotlap.kernels.replace` finds
                            (patterns.py)
    ASKED_FOR               whether replace takes it only where it is asked for by name; False where
                            it is not said
    STATISTICS              whether what only backward needs is fp32 and judged as statistics; True
                            where it is not said

Statistics and sums are in fp32 whatever the inputs are, and nothing is summed by atomics, so that a
result is the same each time. Rows, batch and sequence length are never constexpr; offsets are 64
bits wide. What an operation does not take it refuses (Unsupported) before anything is launched; the
wrapper (library.py) then takes the reference and counts that. Asked for shapes only (fake tensors),
forward and backward do all but launch (contract.needs_launch).
"""
