"""MESSAGE_ID of the journal entries: drawn once at random, one for each kind of event, never reused.

The message catalog in packaging/systemd explains each under the same id.
"""

from __future__ import annotations

from oomwatchd.event import EventKind

MESSAGE_IDS: dict[EventKind, str] = {
    "oom_kill": "e73579b0647c4e32913e05953b325c1b",
    "oom_no_victim": "82f0bbf688964820ad29f23c35b2147c",
    "oom_panic": "aef379ee17fb448f949911a93b8b0447",
    "page_alloc_failure": "7a4b71e9a4e346a0a45b088c2847857d",
    "oomd_kill": "7f9ece434af177d6b628e4ae14c8c72e",
    "user_kill": "485174f66653436e9f987384434de07e",
    "oom_near": "7203baeb889e46efb2c9fb62961924bc",
    "test": "b44368d5d9b04d0e8cedc86168e8541d",
}
