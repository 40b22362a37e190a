"""Steering: a direction that tells two sets of texts apart, added to the stream while a network writes."""

from cutaway.control.direction import SteeringVector
from cutaway.control.means import difference_of_means
from cutaway.control.steering import Steering, steer

__all__ = ["Steering", "SteeringVector", "difference_of_means", "steer"]
