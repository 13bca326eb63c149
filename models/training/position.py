"""Where a training stands in its data: the same batches, in the same order and with the same random
changes, for a training that was killed within an epoch as for one that was not.

Each draw of a loader, in its order and in what it makes of a sample, follows from the seed, the
epoch and the number of the batch. A resumed epoch is gone through again up to the batch where it
stopped, without training: so workers too have drawn what they had drawn.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
from lightning.fabric.utilities.data import sized_len

from ..data.order import derived_seed, of_rank, seed_all
from .guards import TrainingStopped
from .shares import shared

# What stands for the number of the epoch where nothing is trained.
EVALUATION = -1


class SameBatches:
    """A loader whose epochs depend on the seed, its number and that of the epoch alone."""

    def __init__(
        self, loader: Any, seed: int, epoch: Callable[[], int], number: int = 0, rank: int = 0
    ) -> None:
        """epoch: returns the number of the one that is gone through now. number: of the loader, of
        several. rank: of the process, of several that share the order and no other draw.
        """
        self.loader, self.seed, self.epoch, self.number = loader, seed, epoch, number
        self.rank = rank
        # Batches of this epoch that were trained on.
        self.trained = 0
        # Batches that the next epoch to be gone through has behind it.
        self.behind = 0

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def __iter__(self) -> Iterator[Any]:
        epoch, behind, self.behind = self.epoch(), self.behind, 0
        if length := sized_len(self.loader):
            behind %= length  # the shorter of several begins again within an epoch
        of = f"of epoch {epoch}" + (f" of loader {self.number}" if self.number else "")
        with drawn_from(self.seed, f"order {of}", 0):
            for number, generator in enumerate(generators(self.loader)):
                generator.manual_seed(derived_seed(self.seed, f"generator {of}", number))
            batches = iter(self.loader)
        of = of_rank(of, self.rank)
        index = 0
        while True:
            with drawn_from(self.seed, f"batch {of}", index):
                try:
                    batch = next(batches)
                except StopIteration:
                    return
                except (OSError, EOFError, ValueError) as error:
                    *_, why = ["", *str(error).strip().splitlines()]
                    split = "a validation or test split" if epoch == EVALUATION else f"epoch {epoch + 1}"
                    raise TrainingStopped(
                        f"batch {index} of {split} cannot be read: {type(error).__name__}: {why}"
                    ) from error
            if index >= behind:
                # What is drawn on the way to the device.
                seed_all(derived_seed(self.seed, f"transfer {of}", index))
                yield batch
            index += 1

    def state_dict(self) -> dict[str, int]:
        return {"batches": self.trained}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.behind = self.trained = state["batches"]


def epochs_trained(trainer: L.Trainer) -> int:
    """Returns how many epochs were gone through: the number of the one that is, from 0."""
    progress: Any = trainer.fit_loop.epoch_progress.current
    return int(progress.processed)


def generators(loader: Any) -> list[torch.Generator]:
    """Returns the generators of its own that a DataLoader draws its order from."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    parts = (loader, getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None))
    own = (getattr(part, "generator", None) for part in parts)
    return list({id(each): each for each in own if isinstance(each, torch.Generator)}.values())


class Position(L.Callback):
    """Has all splits read by SameBatches, and Lightning keep where the training stands in
    checkpoints. What is drawn while validation or test data are read is the same each time.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        # Of the training split, and the epoch that they were made in.
        self.loaders: list[SameBatches] = []
        self.since = -1
        self.ready = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self.ready:
            return
        self.ready = True
        strategy: Any = trainer.strategy
        original = strategy.process_dataloader

        def epoch() -> int:
            return epochs_trained(trainer)

        def processed(loader: Any) -> Any:
            loader = original(loader)
            if not trainer.training:
                return SameBatches(loader, self.seed, lambda: EVALUATION)
            if sized_len(loader) == 0:
                raise TrainingStopped("the training split is empty")
            if self.since != epoch():
                self.loaders, self.since = [], epoch()
            loader = shared(loader, trainer.global_rank, trainer.world_size)
            self.loaders.append(SameBatches(loader, self.seed, epoch, len(self.loaders), trainer.global_rank))
            return self.loaders[-1]

        strategy.process_dataloader = processed

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Gives loaders their place that were made before the checkpoint was read, as
        `trainer.estimated_stepping_batches` in configure_optimizers has them made: Lightning then
        leaves it out. Of a stream the first batch has been fetched by then, and is fetched again.
        """
        loop: Any = trainer.fit_loop
        if loop._combined_loader_states_to_load or self.since != epochs_trained(trainer):
            loop._load_combined_loader_states()
            iter(loop._data_fetcher)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.stands_at(batch_idx + 1)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.stands_at(0)

    def stands_at(self, batches: int) -> None:
        for loader in self.loaders:
            loader.trained = batches


@contextmanager
def drawn_from(seed: int, purpose: str, count: int) -> Iterator[None]:
    """Has random numbers of torch, numpy and Python follow from the arguments, and those of the
    training go on afterwards as if there had been none.
    """
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    seed_all(derived_seed(seed, purpose, count))
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
