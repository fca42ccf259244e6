from avatar.motion.motion import Motion

__all__ = ["Motion"]
