"""The training loop of all networks: optimiser, learning rate, steps, validation, logs, saved states.

SIGINT and SIGTERM shut it down gracefully between two steps, when the weights are consistent.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields, replace
from math import cos, pi
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import numpy as np
import torch
from torch import nn

from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import write_json
from ubhpd.core.options import from_texts
from ubhpd.core.progress import Progress
from ubhpd.core.rotation import geodesic_deg, matrix_from_euler
from ubhpd.core.typing import FloatArray, IntArray
from ubhpd.inference.prediction_file import angles_and_rotations, cores
from ubhpd.models.model import Model
from ubhpd.nn.contract import Output, PoseNetwork, Target, TrainingRecipe
from ubhpd.nn.outputs import teacher_probabilities
from ubhpd.nn.tracing import Recorded
from ubhpd.protocols.definitions import training_protocol
from ubhpd.training import state
from ubhpd.training import state as logs
from ubhpd.training.distributed import Team
from ubhpd.training.feeding import Feed, HeadBatch, Order, TrainingHeads, normalised
from ubhpd.training.request import TrainRequest
from ubhpd.training.state import Position, State, Tensors

UBHPD_PROTOCOL = "ubhpd"  # the protocol that UBHPD's own split is
SHARE = "share"  # key of a parameter group: its share of the learning rate


def recipe_asked_for(recipe: TrainingRecipe, request: TrainRequest) -> TrainingRecipe:
    """Return the recipe of the paper for the protocol, with what the request says otherwise.

    The request's epochs and steps are no part of it: the schedule is stretched over the length of the run, see
    `learning_rate`; to change what the schedule counts by, give the recipe's own epochs.

    Raises:
        UbhpdError: the request names a value that the recipe lacks, or gives one of another type.
    """
    own = training_protocol(UBHPD_PROTOCOL if request.protocol is None else request.protocol)
    recipe = recipe.for_protocol(own.series, own.id)
    if request.recipe:
        values = {f.name: getattr(recipe, f.name) for f in fields(recipe)}
        recipe = from_texts(TrainingRecipe, request.recipe, f"the training recipe of {request.model}", values)
    names = ("batch_size", "lr", "optimizer", "schedule", "weight_decay")
    given = {n: getattr(request, n) for n in names}
    recipe = replace(recipe, **{name: value for name, value in given.items() if value is not None})
    for name, least in (("epochs", 1), ("batch_size", 1), ("warmup_epochs", 0), ("momentum", 0), ("weight_decay", 0)):
        if getattr(recipe, name) < least:
            value = getattr(recipe, name)
            raise UbhpdError(f"{name} of the training recipe is {value}: give a number of at least {least}.")
    if not recipe.lr > 0:
        raise UbhpdError(f"lr of the training recipe is {recipe.lr}: give a number above 0.")
    return recipe


def learning_rate(recipe: TrainingRecipe, step: int, steps: int) -> float:
    """Return the learning rate of a step, from 0, of a run of `steps`.

    The run as a whole is the `recipe.epochs` epochs of the paper, whatever its length: milestones, warming up and
    decay come at the paper's share of it. Warming up is linear and ends at the full rate; what follows of "cosine" is

        lr (f + (1 - f) (1 + cos(pi t)) / 2)       t from 0 to 1 at the last step, f = final_share
    """
    warm = recipe.warmup_epochs * steps // recipe.epochs
    if step < warm:
        return recipe.lr * (step + 1) / (warm + 1)
    epoch = step * recipe.epochs // steps
    if recipe.schedule == "step":
        return recipe.lr * recipe.gamma ** sum(m <= epoch for m in recipe.milestones)
    if recipe.schedule == "exponential":
        return recipe.lr * recipe.gamma**epoch
    if recipe.schedule == "cosine":
        t = (step - warm) / max(1, steps - 1 - warm)
        return recipe.lr * (recipe.final_share + (1 - recipe.final_share) * (1 + cos(pi * t)) / 2)
    return recipe.lr


def optimizer_of(network: PoseNetwork, recipe: TrainingRecipe, fused: bool | None = True) -> torch.optim.Optimizer:
    """Return the optimiser of a network's parameters, in the groups of `PoseNetwork.learning_rates`.

    Fused, it takes one pass over all numbers of a parameter instead of one per operation: for small batches on a CPU
    it is otherwise a fifth of the step. None is what torch does by default.

    Raises:
        UbhpdError: the network leaves a parameter out of its groups.
    """
    rates = network.learning_rates()
    listed = {id(p) for parameters, _ in rates for p in parameters}
    left_out = [n for n, p in network.named_parameters() if p.requires_grad and id(p) not in listed]
    if left_out:
        raise UbhpdError(f"{type(network).__module__} gives no learning rate for {left_out[0]}: add it to its groups.")
    groups = [{"params": [p for p in parameters if p.requires_grad], SHARE: share} for parameters, share in rates]
    groups = [g for g in groups if g["params"]]
    device = next(network.parameters()).device
    is_recordable = device.type == "cuda" and bool(fused)
    lr, decay = recipe.lr, recipe.weight_decay
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "sgd":
        momentum, nesterov = recipe.momentum, recipe.nesterov
        optimizer = torch.optim.SGD(groups, lr, momentum, weight_decay=decay, nesterov=nesterov, fused=fused)
    else:
        kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
        optimizer = kind(groups, lr, recipe.betas, recipe.eps, decay, fused=fused, capturable=is_recordable)
    if is_recordable:
        for group in optimizer.param_groups:
            group["lr"] = torch.tensor(lr, device=device)
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give each group its share of a learning rate; a rate that is a tensor keeps its place in memory."""
    for group in optimizer.param_groups:
        share = lr * group[SHARE]
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(share)
        else:
            group["lr"] = share


def clip(parameters: Sequence[nn.Parameter], recipe: TrainingRecipe) -> None:
    """Limit each number of the gradients, then their common norm, where the recipe says so."""
    if recipe.clip_value is not None:
        nn.utils.clip_grad_value_(parameters, recipe.clip_value)
    if recipe.clip_norm is not None:
        nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)


def loss_terms(network: PoseNetwork, output: Output, target: Target, weights: FloatArray | None = None) -> Output:
    """Return the terms of the loss in single precision, weighted by head where weights are given.

    A network's loss is a mean over heads, and is not known per head. Therefore the loss is computed for groups of equal
    weight together: the term is sum_g w_g n_g / n L_g over the groups g of n_g heads with the weight w_g. Where a
    network takes its mean over fewer than all heads, as over those with landmarks, it does so in each group.

    Args:
        network: whose loss it is.
        output: what it gave for n heads.
        target: the truth.
        weights: of the heads (n,); None for 1 each.
    """
    output = single_precision(output)
    if weights is None:
        return network.loss(output, target)
    found: Output = {}
    values, group = np.unique(weights, return_inverse=True)
    for number, weight in enumerate(values.tolist()):
        rows = torch.from_numpy(np.flatnonzero(group == number)).to(target.angles_deg.device)
        part = {name: value[rows] for name, value in output.items()}
        own = Target(*(None if t is None else t[rows] for t in target))  # type: ignore[arg-type]
        for name, term in network.loss(part, own).items():
            found[name] = found.get(name, 0) + weight * len(rows) / len(weights) * term
    return found


def single_precision(output: Output) -> Output:
    """Return what a network gave, its 16-bit floats as 32-bit ones: bfloat16 has steps of half a degree at 90."""
    return {name: value.float() if value.is_floating_point() else value for name, value in output.items()}


_LOG = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class GracefulShutdown:
    """Graceful shutdown on SIGINT and SIGTERM: the first signal sets `requested`, the second stops at once."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> GracefulShutdown:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._request) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


def mean_error_deg(network: PoseNetwork, see: Callable[[torch.Tensor], torch.Tensor], feed: Feed, rows: IntArray,
                   angles_deg: FloatArray, batch_size: int) -> float:  # fmt: skip
    """Return the mean geodesic error in degrees of a network on heads without augmentation; infinite if an output is
    not finite.

    The network is left in the mode it was in.

    Args:
        network: the network to evaluate.
        see: from a batch's inputs to what the network takes, on its device.
        feed: of the heads.
        rows: which of them.
        angles_deg: truth of all heads (n, 3).
        batch_size: heads at a time.
    """
    trains = network.training
    network.eval()
    found = []
    try:
        with torch.no_grad():
            for batch in feed.unchanged(_pieces(rows, batch_size)):
                pose = network.pose(single_precision(network(see(batch.inputs))))
                found.append(pose.double().cpu().numpy())
    finally:
        network.train(trains)
    _, rotations = angles_and_rotations(np.concatenate(found))
    errors = geodesic_deg(rotations, matrix_from_euler(angles_deg[rows]))
    return float(errors.mean()) if np.isfinite(errors).all() else float("inf")


def _pieces(rows: IntArray, size: int) -> Iterator[IntArray]:
    return (rows[i : i + size] for i in range(0, len(rows), size))


NAN_FILE = "nan_batch.json"
_LOG_EVERY = 50  # steps
_SAVING_SHARE = 0.05  # of the time, that the saving at the end of epochs may take at most


@dataclass(frozen=True)
class Work:
    """What is to be done: model and recipe, heads and their order, how many steps, who and where.

    weights: of each head in the loss (n,), None for all alike. validation: rows held out. identity: of the run.
    """

    model: Model
    recipe: TrainingRecipe
    heads: TrainingHeads
    order: Order
    feed: Feed
    steps: int
    weights: FloatArray | None
    validation: IntArray
    teachers: tuple[PoseNetwork, ...]
    team: Team
    request: TrainRequest
    identity: dict[str, Any]

    @property
    def out(self) -> Path:
        """Folder of the run."""
        return self.request.out


@contextmanager
def fast(device: torch.device) -> Iterator[None]:
    """Have torch work as steps are fastest: all batches have one shape, and on a CPU the feed needs a core as well.

    The threads of one operation wait for each other, so that a single one without a core to itself holds up all.
    """
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(max(1, min(before, cores() - 1)))
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):
            yield
    finally:
        torch.set_num_threads(before)


class Loop:
    """A training under way."""

    def __init__(self, work: Work) -> None:
        """Put everything on the device, and take up what an interrupted run left.

        Raises:
            UbhpdError: the state in the folder is of another run or damaged.
        """
        self._work, device = work, work.team.device
        request = work.request
        self.network: PoseNetwork = work.model.network.to(device).train()
        if request.channels_last:
            self.network = self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._teachers = [t.to(device) for t in work.teachers]
        self._mean, self._std = (
            torch.tensor(v, device=device).view(3, 1, 1) for v in (work.model.recipe.mean, work.model.recipe.std)
        )
        self._half = torch.float16 if request.precision == "16" and device.type == "cuda" else torch.bfloat16
        self._optimizer = optimizer_of(self.network, work.recipe)
        scales = request.precision != "32" and self._half == torch.float16
        self._scaler = torch.amp.GradScaler(device.type, enabled=scales)
        self.position = Position()
        self.best: Tensors = {}
        self._take_up(state.load(work.out, work.identity))
        self._parallel = work.team.wrapped(self.network)
        if request.compiled:
            self._parallel = torch.compile(self._parallel)
        self._log: logs.Log | None = None
        self._sums: Output = {}
        self._steps_summed = 0
        self._number = torch.zeros((), dtype=torch.float64, device=device)  # of the step
        self._bad = torch.full_like(self._number, float("inf"))
        self._advance: Callable[..., None] = self._advanced
        if device.type == "cuda" and not work.team.is_joined and work.weights is None:
            self._advance = Recorded(self._advanced, device)

    def run(self, progress: Progress) -> None:
        """Train to the end.

        Raises:
            UbhpdError: a loss that is not finite, too little memory, or the folder cannot be written.
            KeyboardInterrupt: a shutdown was requested; the state is saved.
        """
        try:
            self._run(progress)
        except OSError as error:
            raise UbhpdError(
                f"Cannot write {error.filename or self._work.out} ({error.strerror}): make room; the state saved "
                "before is kept, and the same command resumes from it."
            ) from None
        except torch.OutOfMemoryError:
            raise UbhpdError(
                f"The memory of the device is too small for batches of {self._work.order.batch_size}: give a smaller "
                "--batch-size."
            ) from None
        finally:
            if self._log is not None:
                self._log.close()

    def _run(self, progress: Progress) -> None:
        work = self._work
        if work.team.is_main_process:
            self._log = logs.Log(work.out, self.position.log_bytes)
        waits, saved = logs.Waits(work.team.device), _Saved(work.request.save_seconds)
        heads = work.order.batch_size
        with (
            GracefulShutdown() as shutdown,
            progress.bar("Training", work.steps * heads) as advance,
            closing(work.feed.batches(self._wanted())) as batches,
            fast(work.team.device),
        ):
            advance(self.position.step * heads)
            while self.position.step < work.steps:
                begun = waits.begin()
                batch = next(batches).to(work.team.device)
                waits.end(begun)
                self._step(batch)
                advance(heads)
                is_end = self._is_epoch_end()
                is_due = work.team.size == 1 and (shutdown.requested or saved.is_due())
                if is_end or self.position.step % _LOG_EVERY == 0 or is_due:
                    stops = bool(work.team.sums(torch.tensor(float(shutdown.requested), device=work.team.device)))
                    self._tell(waits, is_end)
                    if stops or saved.is_due() or (is_end and saved.is_cheap()):
                        saved.by(self._save)
                    if stops:
                        raise KeyboardInterrupt
            if shutdown.requested and work.team.size == 1:  # after the last of the checks above
                saved.by(self._save)
                raise KeyboardInterrupt

    def _step(self, batch: HeadBatch) -> None:
        """Take one step down the gradient."""
        work, step = self._work, self.position.step
        # Dropout and the like: a function of these numbers, so that nothing needs to be remembered.
        torch.manual_seed(int(np.random.SeedSequence((work.request.seed, step, work.team.rank)).generate_state(1)[0]))
        set_learning_rate(self._optimizer, learning_rate(work.recipe, step, work.steps))
        self._number.fill_(step)
        weights = None if work.weights is None else torch.from_numpy(work.weights[batch.rows])
        self._advance(batch.inputs, *batch.target, weights)
        self._steps_summed += 1
        self.position = replace(self.position, step=step + 1)

    def _advanced(self, inputs: torch.Tensor, *truth: torch.Tensor | None) -> None:
        """Do the part of a step that runs on the device; whatever changes from step to step is a tensor.

        Args:
            inputs: of a `HeadBatch`.
            truth: the fields of its target, then the heads' weights in the loss or None.
        """
        *fields, weights = truth
        target = Target(*fields)  # type: ignore[arg-type]
        with self._autocast():
            seen = self._seen(inputs)
            if self._teachers:
                target = target._replace(teacher=teacher_probabilities(self._teachers, seen).float())
            output = self._parallel(seen)
        terms = loss_terms(self.network, output, target, None if weights is None else weights.numpy())
        loss = torch.stack(list(terms.values())).sum()
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(self._scaler.scale(loss))
        self._scaler.unscale_(self._optimizer)
        clip([p for g in self._optimizer.param_groups for p in g["params"]], self._work.recipe)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        with torch.no_grad():
            self._bad.copy_(torch.minimum(self._bad, torch.where(loss.isfinite(), float("inf"), self._number)))
            for name, term in {"loss": loss, **terms}.items():
                if name not in self._sums:
                    self._sums[name] = torch.zeros_like(term)
                self._sums[name] += term.detach()

    def _wanted(self) -> Iterator[tuple[int, int, IntArray]]:
        """Yield (epoch, place in the epoch, rows) of this process's part of all batches still to come."""
        order, team = self._work.order, self._work.team
        for step in range(self.position.step, self._work.steps):
            epoch, at = divmod(step, order.steps)
            first, rows = team.part(order.batch(epoch, at))
            yield epoch, at * order.batch_size + first, rows

    def _seen(self, inputs: torch.Tensor) -> torch.Tensor:
        return normalised(inputs, self._mean, self._std, self._work.request.channels_last)

    def _autocast(self) -> torch.autocast:
        enabled = self._work.request.precision != "32"
        return torch.autocast(self._work.team.device.type, self._half, enabled=enabled)

    def _is_epoch_end(self) -> bool:
        step = self.position.step
        return step % self._work.order.steps == 0 or step == self._work.steps

    def _tell(self, waits: logs.Waits, is_end: bool) -> None:
        """Check and write down what the last steps came to; at the end of an epoch validate."""
        work, step = self._work, self.position.step
        self._check_finite()
        sums = work.team.sums(torch.stack([v.double() for v in self._sums.values()]))
        means = dict(zip(self._sums, (sums / self._steps_summed / work.team.size).tolist(), strict=True))
        seconds, wait_share = waits.read()
        speed = self._steps_summed * work.order.batch_size / seconds
        self._steps_summed = 0
        for value in self._sums.values():
            value.zero_()
        error = self._validated() if is_end else None
        epoch, epochs = -(-step // work.order.steps), -(-work.steps // work.order.steps)
        lr = learning_rate(work.recipe, step - 1, work.steps)
        loss = means.pop("loss")
        row = {"step": step, "epoch": epoch, "lr": lr, "loss": loss, "validation_error_deg": error,
               "heads_per_second": speed, "wait_share": wait_share}  # fmt: skip
        if self._log is not None:
            self._log.write(row, means)
            self.position = replace(self.position, log_bytes=self._log.bytes)
        waits.read()  # validation is no part of the next interval
        if is_end and work.team.is_main_process:
            judged = "" if error is None else f", validation {error:.3f} degrees"
            _LOG.info(
                f"epoch {epoch} of {epochs}: loss {loss:.4g}{judged}, lr {lr:.3g}, {speed:,.0f} heads/s, "
                f"waiting for data {wait_share:.0%}"
            )

    def _validated(self) -> float | None:
        """Return the error on the heads held out, and keep the weights if it is the least so far."""
        work = self._work
        if not len(work.validation):
            return None
        error = float("inf")
        if work.team.is_main_process:
            with self._autocast():
                error = mean_error_deg(
                    self.network, lambda inputs: self._seen(inputs.to(work.team.device)), work.feed, work.validation,
                    work.heads.angles_deg, max(work.order.batch_size, 64),
                )  # fmt: skip
        error = work.team.broadcast_from_main(error)
        if error < self.position.best_error_deg:
            epoch = -(-self.position.step // work.order.steps)
            self.position = replace(self.position, best_epoch=epoch, best_error_deg=error)
            self.best = {n: v.detach().clone() for n, v in self.network.state_dict().items()}
        return error

    def _check_finite(self) -> None:
        """Raise UbhpdError if a loss was not finite, and write down which batch it was."""
        work = self._work
        if not torch.isfinite(self._bad):
            return
        bad = int(self._bad)
        rows = work.order.batch(*divmod(bad, work.order.steps))
        path = work.out / NAN_FILE
        terms = {name: str(float(v)) for name, v in self._sums.items()}
        write_json({"step": bad + 1, "sums_since_last_report": terms,
                    "sample_id": [work.heads.sample_id[r] for r in rows.tolist()]}, path)  # fmt: skip
        raise UbhpdError(
            f"The loss is not finite at step {bad + 1}: its batch is in {path}; give a lower --lr, or --precision 32."
        )

    def _save(self) -> None:
        if self._work.team.is_main_process:
            scaler = self._scaler.state_dict()
            self.position = replace(
                self.position, scale=scaler.get("scale", 0.0), growth=scaler.get("_growth_tracker", 0)
            )
            tensors = state.optimizer_tensors(self._optimizer)
            kept = State(self.position, self.network.state_dict(), self.best, tensors)
            state.save(self._work.out, kept, self._work.identity)

    def _take_up(self, kept: State | None) -> None:
        if kept is None:
            return
        device = self._work.team.device
        self.position = kept.position
        self.network.load_state_dict(kept.network)
        self.best = {name: value.to(device) for name, value in kept.best.items()}
        state.fill_optimizer(self._optimizer, kept.optimizer)
        if self._scaler.is_enabled():
            own = self._scaler.state_dict()
            self._scaler.load_state_dict(own | {"scale": kept.position.scale, "_growth_tracker": kept.position.growth})


class _Saved:
    """When the state was saved last, and how long that took."""

    def __init__(self, every_seconds: float) -> None:
        self._every, self._last, self._took = every_seconds, time.monotonic(), 0.0

    def is_due(self) -> bool:
        return time.monotonic() - self._last >= self._every

    def is_cheap(self) -> bool:
        return self._took <= _SAVING_SHARE * (time.monotonic() - self._last)

    def by(self, save: Callable[[], None]) -> None:
        begun = time.monotonic()
        save()
        self._last = time.monotonic()
        self._took = self._last - begun
