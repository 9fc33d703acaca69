"""Print each caption with its boxes, and ask the node about each box."""

import contextlib

import rclpy
from kosmos_msgs.msg import GroundedCaption
from kosmos_msgs.srv import Ask
from rclpy.executors import ExternalShutdownException

rclpy.init()
node = rclpy.create_node("listener")
ask = node.create_client(Ask, "/kosmos/ask")


def on_caption(caption):
    print(caption.caption)
    for phrase in caption.phrases:
        for box in phrase.boxes[:1]:  # empty if the phrase is not in view
            print(f"  {phrase.text} at {box.x_min:.0f}, {box.y_min:.0f}, score {box.score:.2f}")
            # The newest frame may already show something else.
            request = Ask.Request(
                question="What is it?", regions=[box], stamp=caption.header.stamp
            )
            if ask.service_is_ready():  # before that, a request may be lost
                ask.call_async(request).add_done_callback(on_answer)


def on_answer(future):
    response = future.result()
    print("  it is", response.answer if response.success else response.message)


node.create_subscription(GroundedCaption, "/kosmos/captions", on_caption, 10)
with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
    rclpy.spin(node)
