//! Signals that end fusion itself: remembered while something must be finished first, and re-raised afterwards.
