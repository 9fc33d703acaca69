"""Drive forward, and stand still while a green square is in view."""

import contextlib

import rclpy
from geometry_msgs.msg import Twist
from kosmos_msgs.msg import Event

rclpy.init()
node = rclpy.create_node("driver")
motors = node.create_publisher(Twist, "/cmd_vel", 10)
speed = 0.2  # m/s


def on_event(event):
    global speed
    if event.subject == "a green square":
        speed = 0.0 if event.kind == Event.APPEARED else 0.2
        seen = "in view" if event.kind == Event.APPEARED else "out of view"
        print(f"{event.subject} is {seen}: {speed} m/s")


def drive():
    command = Twist()
    command.linear.x = speed
    motors.publish(command)


node.create_subscription(Event, "/kosmos/events", on_event, 10)
node.create_timer(0.1, drive)
with contextlib.suppress(KeyboardInterrupt):
    rclpy.spin(node)
