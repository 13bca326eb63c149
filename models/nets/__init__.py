"""Networks, one per file.

The file's name is the network's name everywhere: workload, run folder, command line. A file holds

- one subclass of a task's class (`Classifier`, `LanguageModel`, `Forecaster`, `Autoencoder`,
  `Segmenter`) with the class attributes `data` and `item`, whose constructor takes plain values and
  a recipe and calls `self.save_hyperparameters(ignore="recipe")`, whose `example` returns a sample,
  and whose `forward` takes tensors and returns one tensor: logits, or what the task's class says;
- `PRESETS`, from preset name to constructor arguments, "" being the default;
- `load(preset="") -> Workload` and `ready(report) -> None`, one line each over
  `hotlap.models.workload`.

How it is trained says configs/NAME.yaml. Importing such a file reads no data and starts nothing.
"""

# `hotlap run` without names takes these; the others it takes by name.
STANDARD = ("gpt", "mlp", "resnet", "vit")
# Of them it takes these first: they train in seconds, so that the first table is there soon.
FIRST = ("mlp",)
