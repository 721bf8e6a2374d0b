//! What the macros expand to. Public for them only.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

pub use crate::constant::{arranged, checked_key, checked_name, checked_value, is_tag, order};
use crate::table::Shape;
use crate::{Counter, cells, hash, lookup, registry};

/// A series no thread has cells for.
const UNRESOLVED: u32 = u32::MAX;

/// A call site that always counts the same series.
#[derive(Debug)]
pub struct StaticSite {
    series: AtomicU32,
    name: &'static str,
    keys: &'static [&'static str],
    values: &'static [&'static str],
}

impl StaticSite {
    /// `keys` are sorted; `values` are theirs.
    pub const fn new(name: &'static str, keys: &'static [&'static str], values: &'static [&'static str]) -> Self {
        Self { series: AtomicU32::new(UNRESOLVED), name: checked_name(name), keys, values }
    }

    #[cold]
    #[inline(never)]
    fn add_slowly(&self, value: u64) {
        if value > 0 {
            cells::add(self.resolve(), value);
        }
    }

    fn resolve(&self) -> u32 {
        let known = self.series.load(Ordering::Relaxed);
        if known != UNRESOLVED {
            return known;
        }
        // Threads that meet here resolve to the same series.
        let series = registry::resolve(self.name, self.keys, self.values).series;
        self.series.store(series, Ordering::Relaxed);
        series
    }
}

/// Raises the site's series.
#[inline]
pub fn add_static(site: &'static StaticSite, value: u64) {
    if !cells::try_add(site.series.load(Ordering::Relaxed), value) {
        site.add_slowly(value);
    }
}

/// The site's series as a handle.
pub fn counter_static(site: &'static StaticSite) -> Counter {
    Counter::of(site.resolve())
}

/// A call site whose tags have values known at run time only.
#[derive(Debug)]
pub struct TagSite {
    shape: OnceLock<&'static Shape>,
    name: &'static str,
    keys: &'static [&'static str],
}

impl TagSite {
    /// `keys` are sorted.
    pub const fn new(name: &'static str, keys: &'static [&'static str]) -> Self {
        Self { shape: OnceLock::new(), name: checked_name(name), keys }
    }

    /// Not within `get_or_init`: a child of `fork` would wait forever for a thread of its parent.
    #[cold]
    fn find_shape(&self) -> &'static Shape {
        let shape = registry::shape(self.name, self.keys);
        self.shape.get_or_init(|| shape)
    }

    #[inline]
    fn shape(&self) -> &'static Shape {
        match self.shape.get() {
            Some(shape) => shape,
            None => self.find_shape(),
        }
    }
}

/// Raises the series identified by the values; `order` sorts them as the site's keys are.
#[inline]
pub fn add_tagged<const N: usize>(site: &'static TagSite, order: [usize; N], value: u64, values: [&str; N]) {
    let values = order.map(|place| values[place]);
    let shape = site.shape();
    let hash = hash::with_all(shape.hash, &values);
    match lookup::find(hash, |entry| std::ptr::eq(entry.shape, shape) && entry.has(&values)) {
        Some(entry) => cells::add(entry.series, value),
        None => add_unknown(hash, shape.name, shape.keys, &values, value),
    }
}

/// The series identified by the values, as a handle.
pub fn counter_tagged<const N: usize>(site: &'static TagSite, order: [usize; N], values: [&str; N]) -> Counter {
    let shape = site.shape();
    Counter::of(registry::resolve(shape.name, shape.keys, &order.map(|place| values[place])).series)
}

/// A call site whose counter's name is known at run time only.
#[derive(Debug)]
pub struct NameSite {
    hash: OnceLock<u64>,
    keys: &'static [&'static str],
}

impl NameSite {
    /// `keys` are sorted.
    pub const fn new(keys: &'static [&'static str]) -> Self {
        Self { hash: OnceLock::new(), keys }
    }
}

/// Raises the series identified by name and values; `order` sorts the values as the site's keys are.
#[inline]
pub fn add_named<const N: usize>(
    site: &'static NameSite,
    order: [usize; N],
    name: &str,
    value: u64,
    values: [&str; N],
) {
    let values = order.map(|place| values[place]);
    let keys = *site.hash.get_or_init(|| hash::of_keys(site.keys));
    add_any(hash::with_all(hash::with(keys, name), &values), name, site.keys, &values, value);
}

/// The series identified by name and values, as a handle.
pub fn counter_named<const N: usize>(
    site: &'static NameSite,
    order: [usize; N],
    name: &str,
    values: [&str; N],
) -> Counter {
    Counter::of(registry::resolve(name, site.keys, &order.map(|place| values[place])).series)
}

fn add_any(hash: u64, name: &str, keys: &[&str], values: &[&str], value: u64) {
    let known = lookup::find(hash, |entry| entry.shape.name == name && entry.shape.keys == keys && entry.has(values));
    match known {
        Some(entry) => cells::add(entry.series, value),
        None => add_unknown(hash, name, keys, values, value),
    }
}

#[cold]
#[inline(never)]
fn add_unknown(hash: u64, name: &str, keys: &[&str], values: &[&str], value: u64) {
    if value == 0 {
        return;
    }
    let resolved = registry::resolve(name, keys, values);
    if let Some(entry) = resolved.entry {
        lookup::remember(hash, entry);
    }
    cells::add(resolved.series, value);
}

/// The text of a tag value.
#[inline]
pub fn as_str<T: AsRef<str>>(text: &T) -> &str {
    text.as_ref()
}
