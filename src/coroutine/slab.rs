//! Values known by small numbers, which are used again.

#[derive(Debug)]
pub(super) struct Slab<T> {
    entries: Vec<Option<T>>,
    vacant: Vec<usize>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), vacant: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub(super) fn insert(&mut self, value: T) -> usize {
        match self.vacant.pop() {
            Some(key) => {
                self.entries[key] = Some(value);
                key
            }
            None => {
                self.entries.push(Some(value));
                self.entries.len() - 1
            }
        }
    }

    pub(super) fn get_mut(&mut self, key: usize) -> Option<&mut T> {
        self.entries.get_mut(key)?.as_mut()
    }

    pub(super) fn remove(&mut self, key: usize) -> Option<T> {
        let value = self.entries.get_mut(key)?.take();
        if value.is_some() {
            self.vacant.push(key);
        }
        value
    }

    /// The number of one of the values, if there is any.
    pub(super) fn any(&self) -> Option<usize> {
        self.entries.iter().position(Option::is_some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_used_again() {
        let mut slab = Slab::default();
        assert_eq!((slab.insert('a'), slab.insert('b'), slab.insert('c')), (0, 1, 2));
        assert_eq!((slab.remove(1), slab.remove(1), slab.get_mut(1)), (Some('b'), None, None));
        assert_eq!((slab.insert('d'), slab.insert('e')), (1, 3));
        assert_eq!((slab.any(), slab.get_mut(1)), (Some(0), Some(&mut 'd')));
    }
}
