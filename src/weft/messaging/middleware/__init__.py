"""What can be put around the processing of a message.

In this order, outermost first: `retrying`, `measured`, `acknowledging`, `extending`, `time_limited`. So a
message is acknowledged before it counts as done, its lease is extended for as long as it is worked on, and
all that goes wrong within comes to `retrying`.
"""

from weft.messaging.middleware.acknowledgement import acknowledging
from weft.messaging.middleware.extension import LeaseLost, extending
from weft.messaging.middleware.metrics import ChannelMetrics, MessageMetrics, measured
from weft.messaging.middleware.retries import TooManyDeliveries, retrying
from weft.messaging.middleware.time_limit import time_limited

__all__ = [
    "ChannelMetrics",
    "LeaseLost",
    "MessageMetrics",
    "TooManyDeliveries",
    "acknowledging",
    "extending",
    "measured",
    "retrying",
    "time_limited",
]
