"""vLLM as a managed backend: installed in an environment of its own, run as a process group, checked, restarted.

Nothing here imports vLLM: its dependencies clash with ours, and a GPU's driver should not decide whether we start.
"""

from sluice.backend.vllm.process import VllmProcess
from sluice.backend.vllm.server import VllmServer
from sluice.backend.vllm.settings import VllmSettings, load_vllm_settings

__all__ = ["VllmProcess", "VllmServer", "VllmSettings", "load_vllm_settings"]
