"""The one trainer: Lightning underneath, from a configuration (`settings`) to a weights file (`run`)."""
