//! Values that are fetched once although many ask at the same time, and kept.
//!
//! A lock for each key, held while its value is fetched: whoever comes second waits and finds the value. Not a shared
//! future: when the one who fetches is dropped, its lock is simply free again and the next one fetches. It never decides
//! how long a value is good for; that is for the one who looks into the slot.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// Most slots kept; above it, those that nobody uses and that are not worth keeping go. A slot is some hundred bytes.
const SLOT_LIMIT: usize = 4_096;

/// The place for one value: None until it was fetched.
pub(super) type Slot<V> = Arc<tokio::sync::Mutex<Option<V>>>;

/// Slots by key.
pub(super) struct Flights<K, V> {
    slots: Mutex<HashMap<K, Slot<V>>>,
}

impl<K, V> Default for Flights<K, V> {
    fn default() -> Self {
        Self { slots: Mutex::new(HashMap::new()) }
    }
}

impl<K: Hash + Eq + Clone, V> Flights<K, V> {
    /// The slot of `key`, an empty one if there was none.
    pub fn slot<Q>(&self, key: &Q) -> Slot<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(key) {
            return slot.clone();
        }
        if slots.len() >= SLOT_LIMIT {
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        slots.entry(key.to_owned()).or_default().clone()
    }

    /// The slots whose key fits.
    pub fn matching(&self, fits: impl Fn(&K) -> bool) -> Vec<Slot<V>> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.iter().filter(|(key, _)| fits(key)).map(|(_, slot)| slot.clone()).collect()
    }

    /// Forgets the value of `key`. A fetch that is under way goes on for those who wait for it.
    pub fn remove<Q>(&self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_value_is_found_again_until_it_is_removed() {
        let flights: Flights<String, u32> = Flights::default();
        *flights.slot("a").lock().await = Some(1);
        assert_eq!(*flights.slot("a").lock().await, Some(1));
        assert_eq!(flights.matching(|key| key == "a").len(), 1);
        flights.remove("a");
        assert_eq!(*flights.slot("a").lock().await, None);
    }

    #[tokio::test]
    async fn slots_stay_bounded() {
        let flights: Flights<String, u32> = Flights::default();
        let kept = flights.slot("kept");
        *kept.lock().await = Some(7);
        for n in 0..SLOT_LIMIT * 2 {
            flights.slot(&n.to_string());
        }
        assert!(flights.matching(|_| true).len() <= SLOT_LIMIT);
        assert_eq!(*flights.slot("kept").lock().await, Some(7));
    }
}
