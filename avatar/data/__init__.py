from avatar.data.dataset import PersonDataset

__all__ = ["PersonDataset"]
