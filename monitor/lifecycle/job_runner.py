"""One job of the scheduler: a training, a comparison in shadow, or a drill.

Input: a started job. Output: its outcome, with what became of the version.
Invariant: a job that fails changes nothing. Each transaction that publishes or settles a version checks the lease's
fencing token, and is repeated until the database has answered it.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from monitor import logs, metrics
from monitor.clock import from_us
from monitor.errors import Conflict, MonitorError, StoreUnavailable
from monitor.lifecycle import promotion
from monitor.lifecycle.champions import until_answered
from monitor.lifecycle.drill_results import keep_drill
from monitor.lifecycle.orders import order_of
from monitor.lifecycle.training_process import TrainingOrder, run_training_process
from monitor.store import assets, challengers, jobs, registry
from monitor.timing import DEFAULT_TIMING
from monitor.types import ModelCheckKind, ModelState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime

    from monitor.clock import Clock
    from monitor.config import Config, FleetConfig
    from monitor.lifecycle.champions import Champions
    from monitor.lifecycle.drift_watch import DriftWatch
    from monitor.lifecycle.training_process import Trained
    from monitor.store.engine import AsyncStore
    from monitor.store.lease_renewal import Lease
    from monitor.store.outbox import Channel
    from monitor.timing import Timing
    from monitor.types import JobView, VersionInfo

    Training = Callable[[TrainingOrder, Callable[[float, str], Awaitable[None]]], Awaitable[Trained]]

log = logs.get("training")

FencingToken = tuple[str, int] | None
"""Name and epoch of the lease under which a job was started. None = there is no other daemon."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a job that did not fail."""

    version: str | None
    why: str = ""
    """One sentence: the decision on the version."""


class JobRunner:
    """Carries out jobs, one at a time."""

    def __init__(
        self,
        config: Config,
        store: AsyncStore,
        champions: Champions,
        drift: DriftWatch,
        clock: Clock,
        owner: str,
        lease: Lease | None,
        *,
        timing: Timing = DEFAULT_TIMING,
        train: Training = run_training_process,
        channels: Sequence[Channel] = (),
    ) -> None:
        """`lease`: the training's; None = there is no other daemon. `train`: the training process.

        `channels`: notified of the alert of a bad drill.
        """
        self._config = config
        self._store = store
        self._champions = champions
        self._drift = drift
        self._clock = clock
        self._owner = owner
        self._lease = lease
        self._timing = timing
        self._train = train
        self._channels = channels

    async def carry_out(self, fleet: FleetConfig, job: JobView, token: FencingToken) -> Outcome:
        """Carry out a job that was started. `token`: the one that it was started with.

        Raises what the job raises, Fenced when another daemon has the lease, and WindowChanged once a version with
        windows of another length is published.
        """
        if job.kind == jobs.RETRAIN:
            return await self._retrain(fleet, job, token)
        if job.kind == jobs.JUDGE:
            return await self._compare_in_shadow(fleet, job, token)
        if job.kind == jobs.DRILL:
            return await self._drill(fleet, job)
        raise MonitorError(f"a daemon of this release runs no job of kind {job.kind}")

    async def _retrain(self, fleet: FleetConfig, job: JobView, token: FencingToken) -> Outcome:
        has_champion = self._champions.has_champion(fleet)
        if has_champion and job.reason == "first":  # taken up again, and another daemon has trained it
            return Outcome(None, "the fleet has a model by now")
        trained = await self._in_process(fleet, job)
        if found := trained.card.get("inputs"):
            log.info("inputs_recognised", fleet=fleet.name, version=trained.version, found=found)
        for warning in (trained.card.get("receipt") or {}).get("warnings", ()):
            log.warning("training_data", fleet=fleet.name, version=trained.version, found=warning)
        decision = promotion.decide(fleet.retrain.promote, trained.verdict, has_champion=has_champion)
        if trained.verdict is not None:
            metrics.gate_verdicts.labels("passed" if trained.verdict["passed"] else "refused").inc()
        # A lease that ran out during the training, and that no other daemon took, is valid again after this.
        await until_answered(self._acquire_lease, self._clock, self._timing)
        if decision.state is not None and decision.state != ModelState.CHAMPION:
            return await self._publish(fleet, trained, decision.state, decision.why, token)
        try:
            await self._champions.activate(fleet, trained, token, verdict=trained.verdict)
        except Conflict as error:  # an operator rolled this very version back
            log.warning("challenger_refused", fleet=fleet.name, version=trained.version, why=error.detail)
            return Outcome(trained.version, error.detail)
        supersede = partial(self._store.run, challengers.supersede, fleet.name, trained.version, self._clock.now_us())
        await until_answered(supersede, self._clock, self._timing)
        return Outcome(trained.version, decision.why if trained.verdict else "")

    async def _publish(
        self, fleet: FleetConfig, trained: Trained, state: ModelState, why: str, token: FencingToken
    ) -> Outcome:
        """Publish a version that does not decide, and tell the operator what becomes of it."""
        register = partial(self._store.run, assets.extend_sensors, fleet.name, trained.sensors)
        await until_answered(register, self._clock, self._timing)
        now_us = self._clock.now_us()  # one time for all tries: the registry knows the repeated ones by it
        publish = partial(
            challengers.publish,
            state=state,
            verdict=trained.verdict,
            at_us=now_us,
            lease=token,
            version=trained.version,
            fleet=fleet.name,
            path=trained.path,
            trained_us=now_us if trained.trained_us is None else trained.trained_us,
            card=trained.card,
            metrics=trained.card["metrics"],
        )
        found = await until_answered(partial(self._store.run, publish), self._clock, self._timing)
        if found != state:
            known = "is the champion already" if found == ModelState.CHAMPION else f"was {found} before"
            why = f"this very version {known}: the training had the same data"
            log.info("challenger_refused", fleet=fleet.name, version=trained.version, why=why)
            return Outcome(trained.version, why)
        facts = {"fleet": fleet.name, "version": trained.version, "why": why}
        if state == ModelState.REJECTED:
            log.warning("challenger_rejected", **facts, until_then="the champion stays",
                        see=f"monitor models show {trained.version}")  # fmt: skip
        elif state == ModelState.SHADOW:
            log.info("challenger_in_shadow", **facts, compared_for=str(fleet.retrain.promote))
        elif fleet.retrain.promote.mode == "suggest":
            alerts = (trained.verdict or {}).get("alerts")
            log.info("challenger_proposed", **facts, alerts=alerts, see=f"monitor models diff {trained.version}",
                     accept=f"monitor models promote {trained.version}")  # fmt: skip
        return Outcome(trained.version, f"{state}: {why}")

    async def _compare_in_shadow(self, fleet: FleetConfig, job: JobView, token: FencingToken) -> Outcome:
        """Compare the challenger in shadow with the champion on live records, and decide on it at the end."""
        challenger = await self._store.read(challengers.waiting, fleet.name)
        if challenger is None or challenger.state != ModelState.SHADOW:
            return Outcome(None, "no version of the fleet is in shadow any more")
        verdict = (await self._in_process(fleet, job, challenger)).result
        if verdict is None:
            raise MonitorError("the training process sent no comparison")
        decision = promotion.decide_shadow(
            fleet.retrain.promote, challenger, verdict, self._now(), fleet.retrain.min_windows
        )
        now_us = self._clock.now_us()
        await until_answered(self._acquire_lease, self._clock, self._timing)
        record = partial(
            registry.record_check, at_us=now_us, requested_by=job.requested_by,
            problem=None if verdict["passed"] else str(verdict.get("why", "")), result=verdict,
        )  # fmt: skip
        await self._store.run(record, ModelCheckKind.SHADOW, challenger.version)
        log.info("shadow_compared", fleet=fleet.name, version=challenger.version, why=verdict.get("why"),
                 n_windows=verdict.get("n_windows"), alerts=verdict.get("alerts"), decision=decision.why)  # fmt: skip
        if decision.state is None:
            return Outcome(challenger.version, decision.why)
        settle = partial(challengers.settle, verdict=verdict, at_us=now_us, lease=token, note=decision.why)
        call = (fleet.name, challenger.version, decision.state)
        is_settled = await until_answered(partial(self._store.run, settle, *call), self._clock, self._timing)
        metrics.gate_verdicts.labels("passed" if decision.state == ModelState.CHAMPION else "refused").inc()
        if not is_settled:
            return Outcome(challenger.version, "an operator decided on it meanwhile")
        log.info("shadow_ended", fleet=fleet.name, version=challenger.version, state=decision.state, why=decision.why)
        return Outcome(challenger.version, f"{decision.state}: {decision.why}")

    async def _drill(self, fleet: FleetConfig, job: JobView) -> Outcome:
        """Measure the least faults that the champion would detect, and raise an alert if it detects hardly any."""
        done = await self._in_process(fleet, job)
        if (document := done.result) is None:
            raise MonitorError("the training process sent no drill")
        await until_answered(self._acquire_lease, self._clock, self._timing)
        token = None if self._lease is None else self._lease.fencing_token
        why = await keep_drill(
            self._config, self._store, self._clock, fleet, document, requested_by=job.requested_by,
            lease=token, channels=self._channels, timing=self._timing,
        )  # fmt: skip
        if done.input_drift is not None:
            await self._drift.keep_inputs(fleet, str(document["version"]), done.input_drift)
        return Outcome(str(document["version"]), why)

    async def _in_process(self, fleet: FleetConfig, job: JobView, challenger: VersionInfo | None = None) -> Trained:
        has_champion = self._champions.has_champion(fleet)
        order = await order_of(
            self._config, self._store, fleet, job, has_champion=has_champion, challenger=challenger
        )
        with metrics.trainings_running.track_inprogress():
            return await self._train(order, partial(self._report_progress, job))

    async def _report_progress(self, job: JobView, share: float, text: str) -> None:
        left = replace(job, progress=share).eta(self._now())
        left_s = None if left is None else round(left.total_seconds())
        log.info("training_progress", fleet=job.fleet, done=f"{share:.0%}", step=text, left_s=left_s)
        metrics.training_progress_ratio.labels(job.fleet).set(share)
        metrics.training_eta_seconds.labels(job.fleet).set(0 if left_s is None else left_s)
        with suppress(StoreUnavailable):  # the next report replaces it
            await self._store.run(jobs.set_progress, job.id, share, text, owner=self._owner)

    async def _acquire_lease(self) -> bool:
        return self._lease is None or await self._lease.acquire()

    def _now(self) -> datetime:
        return from_us(self._clock.now_us())
