//! The registry of series. A series is never removed, so its id stays valid forever; the cap bounds their memory.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::arena::Arena;
use crate::table::{Entry, Shape, Table, hash_of, pack};
use crate::text::{self, Canonical};
use crate::warnings::{self, Warning};
use crate::{fork, hash, vec_growth};

/// The most series of a process, by default.
pub(crate) const DEFAULT_MAX_SERIES: usize = 10_000;
/// The highest cap on series that may be set.
pub(crate) const MOST_SERIES: usize = 10_000_000;
/// The tag of an overflow series, which counts for all series beyond the cap.
pub(crate) const OVERFLOW_KEY: &str = "tallybus.overflow";
/// How many names may have an overflow series of their own.
const MOST_OVERFLOWS: usize = 1_000;
/// The counter for the names beyond.
const OVERFLOW_NAME: &str = "tallybus.overflow";
/// The longest text, all values together, that is remembered as another way to write a series.
const MOST_ALIAS_BYTES: usize = 4_096;

pub(crate) struct Registry {
    entries: Table,
    /// By id.
    series: Vec<&'static Entry>,
    shapes: HashMap<(&'static str, &'static [&'static str]), &'static Shape>,
    overflows: HashSet<u32>,
    aliases: usize,
    arena: Arena,
    /// Scratch memory: the values of the current series.
    packed: Vec<u8>,
}

static REGISTRY: RwLock<Option<Registry>> = RwLock::new(None);
static MAX_SERIES: AtomicUsize = AtomicUsize::new(DEFAULT_MAX_SERIES);
static SANITISED: AtomicU64 = AtomicU64::new(0);

fn read() -> RwLockReadGuard<'static, Option<Registry>> {
    REGISTRY.read().unwrap_or_else(PoisonError::into_inner)
}

fn write() -> RwLockWriteGuard<'static, Option<Registry>> {
    REGISTRY.write().unwrap_or_else(PoisonError::into_inner)
}

/// The registry, held over a fork: the child keeps it as it is.
pub(crate) struct ForkLock(
    #[allow(dead_code, reason = "held for as long as it lives")] RwLockWriteGuard<'static, Option<Registry>>,
);

pub(crate) fn lock_for_fork() -> ForkLock {
    ForkLock(write())
}

/// The series that a name and tags resolve to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resolved {
    pub(crate) series: u32,
    /// The entry that a thread may cache; `None` for text beyond the bound on aliases.
    pub(crate) entry: Option<&'static Entry>,
}

impl Resolved {
    fn to(entry: &'static Entry) -> Self {
        Self { series: entry.series, entry: Some(entry) }
    }
}

/// Sets the cap on series; existing series stay.
pub(crate) fn set_max_series(max: usize) {
    MAX_SERIES.store(max, Ordering::Relaxed);
}

/// The number of series; their ids are the numbers below it.
pub(crate) fn len() -> usize {
    read().as_ref().map_or(0, |registry| registry.series.len())
}

/// How often a name or tag was changed to fit.
pub(crate) fn sanitised() -> u64 {
    SANITISED.load(Ordering::Relaxed)
}

/// The entry of a series.
pub(crate) fn entry(id: u32) -> Option<&'static Entry> {
    read().as_ref()?.series.get(id as usize).copied()
}

/// Appends the entries of these series.
pub(crate) fn entries(ids: impl Iterator<Item = u32>, into: &mut Vec<&'static Entry>) {
    let registry = read();
    let Some(registry) = registry.as_ref() else { return };
    into.extend(ids.filter_map(|id| registry.series.get(id as usize)));
}

/// The overflow series.
pub(crate) fn overflows() -> Vec<u32> {
    read().as_ref().map_or_else(Vec::new, |registry| registry.overflows.iter().copied().collect())
}

/// The shape of a call site. The number of call sites is finite, and so is the number of shapes created here.
pub(crate) fn shape(name: &'static str, keys: &'static [&'static str]) -> &'static Shape {
    write().get_or_insert_with(Registry::new).shape(name, keys)
}

/// Finds or creates the series of any name and tags. `keys` are sorted, each given once.
pub(crate) fn resolve(name: &str, keys: &[&str], values: &[&str]) -> Resolved {
    let hash = hash_of(name, keys, values);
    if let Some(entry) = read().as_ref().and_then(|registry| registry.find(hash, name, keys, values)) {
        return Resolved::to(entry);
    }
    let Some(canonical) = text::canonical(name, keys, values) else {
        return intern(hash, name, keys, values);
    };
    if canonical.changed {
        SANITISED.fetch_add(1, Ordering::Relaxed);
        warnings::record(Warning::Sanitised { name: canonical.name.clone() });
    }
    resolve_canonical(&canonical, (hash, name, keys, values))
}

fn resolve_canonical(canonical: &Canonical, alias: (u64, &str, &[&str], &[&str])) -> Resolved {
    let (keys, values): (Vec<&str>, Vec<&str>) =
        canonical.tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).unzip();
    let target = intern(hash_of(&canonical.name, &keys, &values), &canonical.name, &keys, &values);
    if target.entry.is_none() {
        return target;
    }
    let mut registry = write();
    let registry = registry.get_or_insert_with(Registry::new);
    Resolved { series: target.series, entry: registry.alias(target.series, alias) }
}

/// Finds or creates a canonical series, or the overflow series in its place.
fn intern(hash: u64, name: &str, keys: &[&str], values: &[&str]) -> Resolved {
    let max_series = MAX_SERIES.load(Ordering::Relaxed);
    if let Some(registry) = read().as_ref() {
        if let Some(entry) = registry.find(hash, name, keys, values) {
            return Resolved::to(entry);
        }
        // Many readers at once: a flood of new tag values does not make threads queue.
        if registry.is_full(max_series)
            && let Some(series) = registry.known_overflow(name, max_series)
        {
            return Resolved { series, entry: None };
        }
    }
    let mut registry = write();
    let registry = registry.get_or_insert_with(Registry::new);
    if let Some(entry) = registry.find(hash, name, keys, values) {
        return Resolved::to(entry);
    }
    if registry.is_full(max_series) {
        return Resolved { series: registry.overflow(name, max_series), entry: None };
    }
    Resolved::to(registry.create(hash, name, keys, values))
}

/// How many values a tag of a counter has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Spread {
    pub(crate) values: usize,
    pub(crate) name: &'static str,
    pub(crate) key: &'static str,
}

/// The tags with the most distinct values: this counter's, and of all counters'.
pub(crate) fn widest(name: &str) -> (Option<Spread>, Option<Spread>) {
    let registry = read();
    let mut values: HashMap<(&'static str, &'static str), HashSet<&str>> = HashMap::new();
    for entry in registry.iter().flat_map(|registry| &registry.series) {
        for (key, value) in entry.tags().filter(|(key, _)| *key != OVERFLOW_KEY) {
            values.entry((entry.shape.name, key)).or_default().insert(value);
        }
    }
    let spreads = || values.iter().map(|((name, key), values)| Spread { values: values.len(), name, key });
    (spreads().filter(|spread| spread.name == name).max(), spreads().max())
}

impl Registry {
    fn new() -> Self {
        fork::watch();
        Self {
            entries: Table::new(),
            series: Vec::new(),
            shapes: HashMap::new(),
            overflows: HashSet::new(),
            aliases: 0,
            arena: Arena::new(),
            packed: Vec::new(),
        }
    }

    fn find(&self, hash: u64, name: &str, keys: &[&str], values: &[&str]) -> Option<&'static Entry> {
        self.entries.find(hash, |entry| entry.shape.name == name && entry.shape.keys == keys && entry.has(values))
    }

    fn is_full(&self, max_series: usize) -> bool {
        self.series.len() - self.overflows.len() >= max_series
    }

    fn shape(&mut self, name: &str, keys: &[&str]) -> &'static Shape {
        if let Some(shape) = self.shapes.get(&(name, keys)) {
            return shape;
        }
        let name = self.arena.text(name);
        let keys: Vec<&'static str> = keys.iter().map(|key| self.arena.text(key)).collect();
        let keys: &'static [&'static str] = keys.leak();
        let shape = Box::leak(Box::new(Shape { name, keys, hash: hash::with(hash::of_keys(keys), name) }));
        self.shapes.insert((name, keys), shape);
        shape
    }

    fn create(&mut self, hash: u64, name: &str, keys: &[&str], values: &[&str]) -> &'static Entry {
        // Ids stay far below: the cap and the number of overflow series bound them.
        let series = u32::try_from(self.series.len()).unwrap_or(u32::MAX - 1);
        let shape = self.shape(name, keys);
        // Canonical values are short enough.
        let _ = pack(values, &mut self.packed);
        let values = self.arena.bytes(&self.packed);
        let entry = self.arena.entry(Entry::new(shape, values, series));
        vec_growth::reserve_one(&mut self.series);
        self.series.push(entry);
        self.entries.insert(hash, entry);
        entry
    }

    /// Remembers another way to write a series, so that it need not be changed to fit each time. There is a bound on how
    /// many are remembered.
    fn alias(&mut self, series: u32, text: (u64, &str, &[&str], &[&str])) -> Option<&'static Entry> {
        let (hash, name, keys, values) = text;
        if let Some(entry) = self.find(hash, name, keys, values) {
            return Some(entry);
        }
        let length: usize = values.iter().chain(keys).map(|text| text.len()).sum::<usize>() + name.len();
        if self.aliases >= MAX_SERIES.load(Ordering::Relaxed) || length > MOST_ALIAS_BYTES {
            return None;
        }
        pack(values, &mut self.packed)?;
        self.aliases += 1;
        let shape = self.shape(name, keys);
        let values = self.arena.bytes(&self.packed);
        let entry = self.arena.entry(Entry::new(shape, values, series));
        self.entries.insert(hash, entry);
        Some(entry)
    }

    fn known_overflow(&self, name: &str, max_series: usize) -> Option<u32> {
        let limit = format!("max_series={max_series}");
        let (keys, values) = ([OVERFLOW_KEY], [limit.as_str()]);
        let found = |name| self.find(hash_of(name, &keys, &values), name, &keys, &values).map(|entry| entry.series);
        let own = found(name);
        if own.is_some() || self.overflows.len() < MOST_OVERFLOWS { own } else { found(OVERFLOW_NAME) }
    }

    fn overflow(&mut self, name: &str, max_series: usize) -> u32 {
        if let Some(series) = self.known_overflow(name, max_series) {
            return series;
        }
        let name = if self.overflows.len() < MOST_OVERFLOWS { name } else { OVERFLOW_NAME };
        let limit = format!("max_series={max_series}");
        let (keys, values) = ([OVERFLOW_KEY], [limit.as_str()]);
        let series = self.create(hash_of(name, &keys, &values), name, &keys, &values).series;
        self.overflows.insert(series);
        warnings::record(Warning::Overflowed { name: name.to_owned(), max_series });
        series
    }
}
