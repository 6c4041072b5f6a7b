"""Image metrics: drawn images compared with real ones and with baselines."""
