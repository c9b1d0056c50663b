"""Flower's own runs, as the keeper uses them: each attempt at one of the hub's runs is one of these."""

import hashlib
from collections.abc import Mapping
from typing import Literal

import httpx
from flwr.common.constant import Status, SubStatus
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import ListRunsRequest, StartRunRequest, StopRunRequest
from flwr.supercore.fab import Fab

from server.flower_control import ControlUnavailable, FlowerControl

Phase = Literal["alive", "completed", "failed", "unknown"]


class FlowerRuns(FlowerControl):
    """The control API with what concerns runs."""

    def start(self, bundle: bytes, config: Mapping[str, str]) -> int:
        """Start a run of this bundle; Flower's id of it.

        Raises:
            ControlUnavailable: the SuperLink does not answer, or takes no such run.
        """
        fab = Fab(hashlib.sha256(bundle).hexdigest(), bundle, {})
        request = StartRunRequest(
            fab=fab_to_proto(fab), override_config=user_config_to_proto(dict(config))
        )
        answer = self._call(self.client.StartRun, request)
        if not answer.HasField("run_id"):
            raise ControlUnavailable(f"the SuperLink at {self.address} takes no such bundle")
        return int(answer.run_id)

    def phase(self, run_id: int) -> Phase:
        """Where a run is; "unknown" where this SuperLink has none of this id.

        Raises:
            ControlUnavailable: the SuperLink does not answer.
        """
        try:
            answer = self.client.ListRuns(ListRunsRequest(run_id=run_id))
        except httpx.HTTPStatusError as error:
            if error.response.status_code == httpx.codes.NOT_FOUND:
                return "unknown"
            raise ControlUnavailable(
                f"the SuperLink at {self.address} refused: HTTP {error.response.status_code}"
            ) from None
        except (httpx.HTTPError, OSError, ValueError) as error:
            raise ControlUnavailable(
                f"the SuperLink at {self.address} does not answer ({type(error).__name__})"
            ) from None
        status = answer.run_dict[run_id].status
        if status.status != Status.FINISHED:
            return "alive"
        return "completed" if status.sub_status == SubStatus.COMPLETED else "failed"

    def stop(self, run_id: int) -> None:
        """Stop a run; one that has ended is fine.

        Raises:
            ControlUnavailable: the SuperLink does not answer.
        """
        if self.phase(run_id) == "alive":
            self._call(self.client.StopRun, StopRunRequest(run_id=run_id))
