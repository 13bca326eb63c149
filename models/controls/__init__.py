"""Controls, one per file: what a network has to beat to be worth its weights.

The file's name is the control's name. A file holds

- `NETWORKS`, the names of the networks that it is a control of;
- `outputs(train, inputs) -> Tensor`: what the control, fitted to the training split alone, answers
  to the inputs, in the shape and the meaning of the network's own outputs, so that the same
  function scores both.

They are plain scikit-learn, or a formula. Importing such a file reads no data and fits nothing.
"""
