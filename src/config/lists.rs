//! Lists in the file, and what is said where none stands.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Reads a list. An empty one would mean the default, which whoever wrote it has not meant.
pub(super) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    deserializer
        .deserialize_any(List { expecting: "a list in brackets, such as [\"…\"]", items: PhantomData })
}

/// Reads an array of tables.
pub(super) fn tables<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let expecting = "a table for each group of endpoints: write [[listen]], with two brackets";
    deserializer.deserialize_any(List { expecting, items: PhantomData })
}

struct List<T> {
    expecting: &'static str,
    items: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        if items.is_empty() {
            return Err(A::Error::custom("the list is empty; fill it, or leave it out for the default"));
        }
        Ok(items)
    }
}
