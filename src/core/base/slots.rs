//! A table of entries whose ids are not reused: a slab with generations.
//!
//! When an entry is removed, a later entry can get the same index. So an index alone could find the
//! wrong entry. An [`Id`] therefore also has a *generation*, a number that each new entry gets. A
//! look-up by the id of a removed entry returns `None`.

use slab::Slab;

/// The id of one entry: its index in the table, and its generation. If an index is used again, the
/// new entry has another generation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    index: u32,
    generation: u32,
}

impl Id {
    /// The index of the entry in the table. After the entry is removed, a later entry can get the
    /// same index.
    #[must_use]
    pub const fn index(self) -> usize {
        self.index as usize
    }

    /// The serial number of the entry. It is unique for the first 2³² entries of a table; then the
    /// numbers begin again.
    #[must_use]
    pub const fn serial(self) -> u32 {
        self.generation
    }

    /// The id as one number, for `mio::Token`.
    #[must_use]
    pub const fn to_u64(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }

    /// Turns a number from [`Id::to_u64`] back into the id.
    #[must_use]
    pub const fn from_u64(number: u64) -> Id {
        Id {
            index: number as u32,
            generation: (number >> 32) as u32,
        }
    }
}

impl std::fmt::Debug for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "#{}", self.generation)
    }
}

/// A table of entries. Each entry has an [`Id`].
pub struct Slots<T> {
    slab: Slab<T>,
    /// For each index, the generation of the last entry there, even if that entry was removed. The
    /// generations are not stored in the slab, because alignment could make each of them take eight
    /// bytes there instead of four.
    generations: Vec<u32>,
    last_generation: u32,
}

impl<T> Default for Slots<T> {
    fn default() -> Slots<T> {
        Slots::with_capacity(0)
    }
}

impl<T> Slots<T> {
    /// Creates a table with memory reserved for `count` entries. Reserved memory that is not used
    /// takes address space, but no physical memory. A table that does not grow is never copied to a
    /// larger block, so it leaves no holes in the heap.
    #[must_use]
    pub fn with_capacity(count: usize) -> Slots<T> {
        Slots {
            slab: Slab::with_capacity(count),
            generations: Vec::with_capacity(count),
            last_generation: 0,
        }
    }

    /// Adds an entry and returns its id.
    ///
    /// ```
    /// use herd_mio::core::base::slots::Slots;
    ///
    /// let mut slots = Slots::default();
    /// let first = slots.insert("first");
    /// slots.remove(first);
    /// let second = slots.insert("second");
    /// assert_eq!(first.index(), second.index());
    /// assert_eq!((slots.get(first), slots.get(second)), (None, Some(&"second")));
    /// ```
    pub fn insert(&mut self, value: T) -> Id {
        self.insert_with(|_| value)
    }

    /// Adds the entry that `make` creates. `make` gets the id of the new entry.
    pub fn insert_with(&mut self, make: impl FnOnce(Id) -> T) -> Id {
        self.last_generation = self.last_generation.wrapping_add(1);
        let entry = self.slab.vacant_entry();
        // The cast loses nothing: a table of 2³² entries would not fit in memory.
        let id = Id {
            index: entry.key() as u32,
            generation: self.last_generation,
        };
        match self.generations.get_mut(id.index()) {
            Some(generation) => *generation = id.generation,
            None => self.generations.push(id.generation), // a slab's new indices are consecutive
        }
        entry.insert(make(id));
        id
    }

    /// Whether `id` has the last generation at its index. The entry itself may already be removed.
    fn is_current(&self, id: Id) -> bool {
        self.generations.get(id.index()) == Some(&id.generation)
    }

    /// Returns the entry, or `None` if it was removed.
    #[must_use]
    pub fn get(&self, id: Id) -> Option<&T> {
        self.slab.get(id.index()).filter(|_| self.is_current(id))
    }

    /// Returns the entry, or `None` if it was removed.
    #[must_use]
    pub fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        let is_current = self.is_current(id);
        self.slab.get_mut(id.index()).filter(|_| is_current)
    }

    /// Removes the entry and returns it. Returns `None` if it was removed before.
    pub fn remove(&mut self, id: Id) -> Option<T> {
        self.get(id)?;
        self.slab.try_remove(id.index())
    }

    /// The number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Whether the table has no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// The number of slots, including empty ones. The index of each entry is less than this number.
    #[must_use]
    pub fn places(&self) -> usize {
        self.generations.len()
    }

    /// Returns the entry at an index, or `None` if the slot is empty.
    #[must_use]
    pub fn at(&self, index: usize) -> Option<(Id, &T)> {
        let value = self.slab.get(index)?;
        let id = Id {
            index: index as u32,
            generation: self.generations[index],
        };
        Some((id, value))
    }

    /// Returns all entries in the order of their indices.
    pub fn iter(&self) -> impl Iterator<Item = (Id, &T)> {
        self.slab.iter().map(|(index, value)| {
            let id = Id {
                index: index as u32,
                generation: self.generations[index],
            };
            (id, value)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_removed_slot_finds_nothing() {
        let mut slots = Slots::default();
        let a = slots.insert('a');
        let b = slots.insert('b');
        assert_eq!(slots.remove(a), Some('a'));
        assert_eq!(slots.remove(a), None);
        let c = slots.insert('c');
        assert_eq!(c.index(), a.index());
        assert_eq!(slots.get(a), None);
        assert_eq!(slots.get_mut(a), None);
        assert_eq!(slots.remove(a), None);
        assert_eq!(
            slots.iter().map(|(id, v)| (id, *v)).collect::<Vec<_>>(),
            [(c, 'c'), (b, 'b')]
        );
    }

    #[test]
    fn an_id_survives_conversion_to_u64() {
        let mut slots = Slots::default();
        slots.insert(());
        let id = slots.insert(());
        assert_eq!(Id::from_u64(id.to_u64()), id);
        assert!(slots.get(Id::from_u64(id.to_u64() + (1 << 32))).is_none());
    }
}
