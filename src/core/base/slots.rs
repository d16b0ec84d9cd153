//! A table whose entries are named by ids that are never reused: a slab with generations.
//!
//! An index alone would name whoever took the place of the dead; an id of somebody dead names
//! nothing, for ever.

use slab::Slab;

/// The name of one entry: where it is, and which of all that ever were there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    index: u32,
    generation: u32,
}

impl Id {
    /// The place in the table. Another entry may take it later.
    #[must_use]
    pub const fn index(self) -> usize {
        self.index as usize
    }

    /// A serial number: no two entries of a table share one before four thousand million were made.
    #[must_use]
    pub const fn serial(self) -> u32 {
        self.generation
    }

    /// The id as one number, as `mio::Token` wants it.
    #[must_use]
    pub const fn to_u64(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }

    /// The id that [`Id::to_u64`] gave this number for.
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

/// The table.
pub struct Slots<T> {
    slab: Slab<T>,
    /// Of each place, whoever has it or had it last. Beside the slab, where four bytes take four.
    generations: Vec<u32>,
    last_generation: u32,
}

impl<T> Default for Slots<T> {
    fn default() -> Slots<T> {
        Slots::with_capacity(0)
    }
}

impl<T> Slots<T> {
    /// A table that has room for so many at once. What is not used takes address space and no
    /// memory, and a table that never moves leaves no holes behind.
    #[must_use]
    pub fn with_capacity(count: usize) -> Slots<T> {
        Slots {
            slab: Slab::with_capacity(count),
            generations: Vec::with_capacity(count),
            last_generation: 0,
        }
    }

    /// Adds an entry.
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

    /// Adds an entry that wants to know its own id.
    pub fn insert_with(&mut self, make: impl FnOnce(Id) -> T) -> Id {
        self.last_generation = self.last_generation.wrapping_add(1);
        let place = self.slab.vacant_entry();
        // A table of 2³² entries would not fit in memory.
        let id = Id {
            index: place.key() as u32,
            generation: self.last_generation,
        };
        match self.generations.get_mut(id.index()) {
            Some(generation) => *generation = id.generation,
            None => self.generations.push(id.generation), // a slab grows by one place
        }
        place.insert(make(id));
        id
    }

    /// Whether the entry that has this place now is meant, if there is one.
    fn is_of(&self, id: Id) -> bool {
        self.generations.get(id.index()) == Some(&id.generation)
    }

    /// The entry, if it is still alive.
    #[must_use]
    pub fn get(&self, id: Id) -> Option<&T> {
        self.slab.get(id.index()).filter(|_| self.is_of(id))
    }

    /// The entry, if it is still alive.
    #[must_use]
    pub fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        let is_meant = self.is_of(id);
        self.slab.get_mut(id.index()).filter(|_| is_meant)
    }

    /// Takes the entry out, if it is still alive.
    pub fn remove(&mut self, id: Id) -> Option<T> {
        self.get(id)?;
        self.slab.try_remove(id.index())
    }

    /// How many are alive.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Whether none is alive.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// All that are alive, by place.
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
    fn the_dead_are_nobody() {
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
    fn an_id_survives_being_a_number() {
        let mut slots = Slots::default();
        slots.insert(());
        let id = slots.insert(());
        assert_eq!(Id::from_u64(id.to_u64()), id);
        assert!(slots.get(Id::from_u64(id.to_u64() + (1 << 32))).is_none());
    }
}
