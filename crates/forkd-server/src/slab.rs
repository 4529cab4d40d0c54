//! Numbered entries, for what a reactor or a scheduler looks after.
//!
//! Invariant: a [`Key`] is never given twice, until an index has been used 2^32 times: what is meant for
//! a thing that has gone never reaches another that has its index. A poller may tell of a socket that was closed
//! long ago, as long as another process has a copy of it.

/// Which thing: its index, and how often the index had been used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    index: u32,
    generation: u32,
}

/// How many bits of a token number the index.
const INDEX_BITS: u32 = if usize::BITS >= 64 { 32 } else { 20 };

impl Key {
    /// What the first thing in a slab gets.
    pub(crate) const FIRST: Self = Self { index: 0, generation: 0 };

    /// The number that a poller knows it by.
    pub(crate) fn token(self) -> usize {
        (self.generation as usize) << INDEX_BITS | self.index as usize
    }
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    /// Whether there is a thing, if only one that is lent.
    taken: bool,
    thing: Option<T>,
}

#[derive(Debug)]
pub(crate) struct Slab<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// An entry whose thing is put there later, by [`put_back`](Self::put_back).
    pub(crate) fn reserve(&mut self) -> Key {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry { generation: 0, taken: false, thing: None });
            (self.entries.len() - 1) as u32
        });
        let there = &mut self.entries[index as usize];
        there.taken = true;
        Key { index, generation: there.generation }
    }

    pub(crate) fn insert(&mut self, thing: T) -> Key {
        let key = self.reserve();
        self.put_back(key, thing);
        key
    }

    /// What a token was made of, if that is still there.
    pub(crate) fn key(&self, token: usize) -> Option<Key> {
        let index = token & ((1 << INDEX_BITS) - 1);
        let there = self.entries.get(index).filter(|there| there.taken)?;
        let key = Key { index: index as u32, generation: there.generation };
        (key.token() == token).then_some(key)
    }

    fn entry(&mut self, key: Key) -> Option<&mut Entry<T>> {
        let entry = self.entries.get_mut(key.index as usize)?;
        (entry.taken && entry.generation == key.generation).then_some(entry)
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.entry(key)?.thing.as_mut()
    }

    /// Takes a thing out for a while; its entry stays its own.
    pub(crate) fn lend(&mut self, key: Key) -> Option<T> {
        self.entry(key)?.thing.take()
    }

    /// Puts a thing back that was lent; returns it if it has been removed meanwhile.
    pub(crate) fn put_back(&mut self, key: Key, thing: T) -> Option<T> {
        match self.entry(key) {
            Some(entry) => entry.thing.replace(thing),
            None => Some(thing),
        }
    }

    /// One of the things, if there is any.
    #[cfg(feature = "coroutine")]
    pub(crate) fn any(&self) -> Option<Key> {
        let index = self.entries.iter().position(|there| there.taken)?;
        Some(Key { index: index as u32, generation: self.entries[index].generation })
    }

    /// All things that are there and not lent.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut T)> {
        self.entries.iter_mut().enumerate().filter_map(|(index, entry)| {
            let key = Key { index: index as u32, generation: entry.generation };
            Some((key, entry.thing.as_mut()?))
        })
    }

    /// Frees the entry, also of what is lent.
    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let entry = self.entry(key)?;
        entry.taken = false;
        entry.generation = entry.generation.wrapping_add(1);
        let thing = entry.thing.take();
        self.free.push(key.index);
        thing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_what_has_gone_does_not_fit_its_successor() {
        let mut slab = Slab::default();
        let a = slab.insert('a');
        assert_eq!((a, slab.any(), slab.key(a.token())), (Key::FIRST, Some(a), Some(a)));
        assert_eq!((slab.remove(a), slab.len(), slab.any()), (Some('a'), 0, None));
        let b = slab.insert('b');
        assert_eq!(a.index, b.index);
        assert_eq!(slab.get_mut(a), None);
        assert_eq!((slab.key(a.token()), slab.remove(a)), (None, None));
        assert_eq!(slab.get_mut(b), Some(&mut 'b'));
    }

    #[test]
    fn what_is_lent_can_be_removed() {
        let mut slab = Slab::default();
        let (a, b) = (slab.insert('a'), slab.insert('b'));
        assert_eq!((slab.lend(a), slab.lend(a), slab.lend(b)), (Some('a'), None, Some('b')));
        assert_eq!((slab.remove(a), slab.len()), (None, 1));
        let c = slab.insert('c');
        assert_eq!((slab.put_back(a, 'a'), slab.put_back(b, 'b')), (Some('a'), None));
        assert_eq!((slab.get_mut(b).copied(), slab.get_mut(c).copied()), (Some('b'), Some('c')));
    }
}
