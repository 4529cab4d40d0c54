//! Numbered places, for what a reactor or a scheduler looks after.
//!
//! Invariant: a [`Key`] is never given twice, until a place has been used 2^32 times: what is meant for
//! a thing that has gone never reaches another that has its place. A poller may tell of a socket that was closed
//! long ago, as long as another process has a copy of it.

/// Which thing: its place, and how often the place had been used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    place: u32,
    generation: u32,
}

/// How many bits of a token number the place.
const PLACE_BITS: u32 = if usize::BITS >= 64 { 32 } else { 20 };

impl Key {
    /// What the first thing in a slab gets.
    #[cfg(feature = "coroutine")]
    pub(crate) const FIRST: Self = Self { place: 0, generation: 0 };

    /// The number that a poller knows it by.
    pub(crate) fn token(self) -> usize {
        (self.generation as usize) << PLACE_BITS | self.place as usize
    }
}

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    /// Whether there is a thing, if only one that is lent.
    taken: bool,
    thing: Option<T>,
}

#[derive(Debug)]
pub(crate) struct Slab<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// A place whose thing is put there later, by [`put_back`](Self::put_back).
    pub(crate) fn reserve(&mut self) -> Key {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { generation: 0, taken: false, thing: None });
            (self.places.len() - 1) as u32
        });
        let there = &mut self.places[place as usize];
        there.taken = true;
        Key { place, generation: there.generation }
    }

    pub(crate) fn insert(&mut self, thing: T) -> Key {
        let key = self.reserve();
        self.put_back(key, thing);
        key
    }

    /// What a token was made of, if that is still there.
    pub(crate) fn key(&self, token: usize) -> Option<Key> {
        let place = token & ((1 << PLACE_BITS) - 1);
        let there = self.places.get(place).filter(|there| there.taken)?;
        let key = Key { place: place as u32, generation: there.generation };
        (key.token() == token).then_some(key)
    }

    fn place(&mut self, key: Key) -> Option<&mut Place<T>> {
        let place = self.places.get_mut(key.place as usize)?;
        (place.taken && place.generation == key.generation).then_some(place)
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.place(key)?.thing.as_mut()
    }

    /// Takes a thing out for a while; its place stays its own.
    pub(crate) fn lend(&mut self, key: Key) -> Option<T> {
        self.place(key)?.thing.take()
    }

    /// Puts a thing back that was lent; returns it if it has been removed meanwhile.
    pub(crate) fn put_back(&mut self, key: Key, thing: T) -> Option<T> {
        match self.place(key) {
            Some(place) => place.thing.replace(thing),
            None => Some(thing),
        }
    }

    /// One of the things, if there is any.
    #[cfg(feature = "coroutine")]
    pub(crate) fn any(&self) -> Option<Key> {
        let place = self.places.iter().position(|there| there.taken)?;
        Some(Key { place: place as u32, generation: self.places[place].generation })
    }

    /// Frees the place, also of what is lent.
    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let place = self.place(key)?;
        place.taken = false;
        place.generation = place.generation.wrapping_add(1);
        let thing = place.thing.take();
        self.free.push(key.place);
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
        assert_eq!(a.place, b.place);
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
