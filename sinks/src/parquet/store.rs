//! The directory or bucket that contains the files.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path as FolderPath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions};
use tallybus_sdk::{SinkError, TimeRange, folder};
use tokio::sync::OnceCell;
use tokio::task::JoinSet;

use super::config::Config;
use super::encode;
use super::read::{self, Row};
use crate::shared::aws::{Aws, StoreUrl, judge_store, open_store};

/// Files fetched concurrently when reading back; each is in memory while it is read.
const FETCHED_AT_ONCE: usize = 8;

/// The outcome of writing a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    New,
    /// A file of that name exists and was left unchanged.
    Known,
}

#[derive(Debug)]
pub(super) struct Store {
    config: Config,
    aws: Aws,
    opened: OnceCell<Arc<dyn ObjectStore>>,
}

impl Store {
    pub(super) fn new(config: Config, aws: Aws) -> Self {
        Self { config, aws, opened: OnceCell::new() }
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Whether the place is a directory of this machine.
    pub(super) fn is_folder(&self) -> bool {
        matches!(self.config.place, StoreUrl::Folder(_))
    }

    /// The directory, if it is one of this machine.
    pub(super) fn directory(&self) -> Option<PathBuf> {
        match &self.config.place {
            StoreUrl::Folder(folder) => Some(folder.clone()),
            StoreUrl::S3 { .. } => None,
        }
    }

    /// The canonical name of the place.
    pub(super) fn destination(&self) -> String {
        match &self.config.place {
            StoreUrl::Folder(path) => tallybus_sdk::canonical_path(path).display().to_string(),
            place @ StoreUrl::S3 { .. } => match self.aws.settings().endpoint_host() {
                Some(host) => format!("{place} at {host}"),
                None => place.to_string(),
            },
        }
    }

    /// Checks that the place exists and can be listed, and that files can be created in a directory.
    pub(super) async fn check(&self) -> Result<(), SinkError> {
        if let StoreUrl::Folder(folder) = &self.config.place
            && self.may_be_missing(folder)
        {
            return can_be_created(folder);
        }
        let store = self.open().await?;
        let nowhere = Path::from("date=0000-00-00");
        self.in_time(store.list_with_delimiter(Some(&nowhere))).await?;
        match &self.config.place {
            StoreUrl::Folder(folder) => can_be_written(folder),
            StoreUrl::S3 { .. } => Ok(()),
        }
    }

    pub(super) async fn prepare(&self, create: bool) -> Result<(), SinkError> {
        if let StoreUrl::Folder(folder) = &self.config.place
            && create
        {
            fs::create_dir_all(folder).map_err(|error| {
                SinkError::Halt(format!("cannot create {}: {error}; correct `path`", folder.display()))
            })?;
        }
        self.check().await
    }

    /// Writes a file whole or not at all, and never over another.
    pub(super) async fn put(&self, day: i32, name: &str, file: Bytes) -> Result<Put, SinkError> {
        let store = self.open().await?;
        let path = path(day, name);
        let putting = store.put_opts(&path, file.into(), PutOptions::from(PutMode::Create));
        match tokio::time::timeout(self.config.timeout, putting).await {
            Err(_) => Err(self.slow()),
            Ok(Ok(_)) => Ok(Put::New),
            Ok(Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. })) => {
                Ok(Put::Known)
            }
            Ok(Err(error)) => Err(self.judge_at(&path, &error)),
        }
    }

    /// Whether the existing file of that name holds the same rows as this one.
    pub(super) async fn holds(&self, day: i32, name: &str, file: &Bytes) -> Result<bool, SinkError> {
        let held = self.compare(day, name, file).await?;
        // S3 reports a name that another writer is just writing as taken, and that write may still fail.
        held.ok_or_else(|| {
            let path = path(day, name);
            SinkError::Unavailable(format!("{path} is being written by another writer and does not exist yet"))
        })
    }

    /// Whether the file of that name holds the same rows as this one; `None` when it does not exist.
    pub(super) async fn compare(&self, day: i32, name: &str, file: &Bytes) -> Result<Option<bool>, SinkError> {
        let (store, path) = (self.open().await?, path(day, name));
        let found = async {
            match store.get(&path).await {
                Ok(found) => found.bytes().await.map(Some),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        };
        match self.in_time(found).await? {
            Some(found) if found == *file => Ok(Some(true)),
            Some(found) => read::same_rows(&found, file).map(Some).map_err(|error| {
                let place = &self.config.place;
                SinkError::Halt(format!(
                    "{place}/{path} exists and cannot be read: {error}; it was left unchanged. Restore the file, or \
                     move it elsewhere to have it written again"
                ))
            }),
            None => Ok(None),
        }
    }

    /// The files of a directory, with their content; none where it does not exist.
    pub(super) async fn files(&self, directory: &Path) -> Result<Vec<(Path, Bytes)>, SinkError> {
        if let StoreUrl::Folder(folder) = &self.config.place
            && self.may_be_missing(folder)
        {
            return Ok(Vec::new());
        }
        let store = self.open().await?;
        let mut files = Vec::new();
        for object in self.in_time(store.list_with_delimiter(Some(directory))).await?.objects {
            let path = object.location;
            let found = async {
                match store.get(&path).await {
                    Ok(found) => found.bytes().await.map(Some),
                    // Removed since it was listed.
                    Err(object_store::Error::NotFound { .. }) => Ok(None),
                    Err(error) => Err(error),
                }
            };
            if let Some(content) = self.in_time(found).await? {
                files.push((path, content));
            }
        }
        Ok(files)
    }

    /// Writes a file whole, over another one of that name.
    pub(super) async fn replace(&self, path: &Path, content: Bytes) -> Result<(), SinkError> {
        let store = self.open().await?;
        let putting = store.put_opts(path, content.into(), PutOptions::from(PutMode::Overwrite));
        match tokio::time::timeout(self.config.timeout, putting).await {
            Err(_) => Err(self.slow()),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.judge_at(path, &error)),
        }
    }

    /// Removes a file, if it exists.
    pub(super) async fn remove(&self, path: &Path) -> Result<(), SinkError> {
        let store = self.open().await?;
        match tokio::time::timeout(self.config.timeout, store.delete(path)).await {
            Err(_) => Err(self.slow()),
            Ok(Ok(()) | Err(object_store::Error::NotFound { .. })) => Ok(()),
            Ok(Err(error)) => Err(self.judge_at(path, &error)),
        }
    }

    /// Removes the directory, or every object below the prefix.
    pub(super) async fn remove_all(&self) -> Result<(), SinkError> {
        if let StoreUrl::Folder(folder) = &self.config.place {
            let (removed, shown) = (folder.clone(), folder.display());
            let removing = tokio::task::spawn_blocking(move || fs::remove_dir_all(removed)).await;
            return match removing.map_err(|error| SinkError::Unavailable(error.to_string()))? {
                Ok(()) => Ok(()),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                Err(error) => {
                    Err(SinkError::Halt(format!("{shown} cannot be removed: {error}; remove the directory by hand")))
                }
            };
        }
        for object in self.objects().await? {
            self.remove(&object.location).await?;
        }
        Ok(())
    }

    /// Every object, whatever it is; none where the directory does not exist yet and may be created.
    pub(super) async fn objects(&self) -> Result<Vec<ObjectMeta>, SinkError> {
        if let StoreUrl::Folder(folder) = &self.config.place
            && self.may_be_missing(folder)
        {
            return Ok(Vec::new());
        }
        let store = self.open().await?;
        let mut objects = Vec::new();
        let mut folders = vec![None];
        while let Some(folder) = folders.pop() {
            let listing = self.in_time(store.list_with_delimiter(folder.as_ref())).await?;
            folders.extend(listing.common_prefixes.into_iter().map(Some));
            objects.extend(listing.objects);
        }
        Ok(objects)
    }

    /// Visits every row of every file whose day is in the range; rows may be outside it.
    pub(super) async fn rows(&self, range: TimeRange, mut each: impl FnMut(Row)) -> Result<(), SinkError> {
        if let StoreUrl::Folder(folder) = &self.config.place
            && self.may_be_missing(folder)
        {
            return Ok(());
        }
        let store = self.open().await?;
        for folder in self.in_time(store.list_with_delimiter(None)).await?.common_prefixes {
            let day = folder.parts().next_back().and_then(|part| encode::day_of(part.as_ref()));
            let Some((start, end)) = day.map(encode::day_bounds) else { continue };
            if range.from.is_some_and(|from| end <= from && end != i64::MAX) || range.to.is_some_and(|to| start >= to) {
                continue;
            }
            let listing = self.in_time(store.list_with_delimiter(Some(&folder))).await?;
            let ours = listing.objects.into_iter().map(|object| object.location);
            let ours = ours.filter(|path| path.filename().is_some_and(encode::is_name));
            self.rows_of(store, ours.collect(), &mut each).await?;
        }
        Ok(())
    }

    async fn rows_of(
        &self,
        store: &Arc<dyn ObjectStore>,
        paths: Vec<Path>,
        each: &mut impl FnMut(Row),
    ) -> Result<(), SinkError> {
        let mut paths = paths.into_iter();
        let mut fetches = JoinSet::new();
        let fetch = |path: Path| {
            let store = Arc::clone(store);
            async move {
                let file = match store.get(&path).await {
                    Ok(found) => found.bytes().await,
                    Err(error) => Err(error),
                };
                (path, file)
            }
        };
        for path in paths.by_ref().take(FETCHED_AT_ONCE) {
            fetches.spawn(fetch(path));
        }
        while let Some(fetched) = fetches.join_next().await {
            let (path, file) = fetched.map_err(|error| SinkError::Unavailable(error.to_string()))?;
            if let Some(path) = paths.next() {
                fetches.spawn(fetch(path));
            }
            let file = file.map_err(|error| self.judge_at(&path, &error))?;
            read::rows(file, &mut *each)
                .map_err(|error| SinkError::Halt(format!("{}/{path} cannot be read: {error}", self.config.place)))?;
        }
        Ok(())
    }

    /// A directory that does not exist yet and may be created.
    fn may_be_missing(&self, folder: &FolderPath) -> bool {
        // A directory that cannot be looked at is not missing.
        self.config.create && !self.opened.initialized() && matches!(folder.try_exists(), Ok(false))
    }

    /// A directory that existed and disappeared is not recreated: its file system may be mounted again.
    async fn open(&self) -> Result<&Arc<dyn ObjectStore>, SinkError> {
        if let StoreUrl::Folder(folder) = &self.config.place {
            self.find(folder)?;
        }
        self.opened.get_or_try_init(|| open_store(&self.config.place, &self.aws)).await
    }

    /// Checks that the directory is there.
    fn find(&self, folder: &FolderPath) -> Result<(), SinkError> {
        let (found, folder) = (fs::metadata(folder), folder.display());
        match found {
            Ok(found) if found.is_dir() => Ok(()),
            Ok(_) => Err(SinkError::Halt(format!("{folder} is not a directory: correct `path`"))),
            Err(error) if self.opened.initialized() => Err(SinkError::Unavailable(format!(
                "{folder} has disappeared ({error}): restore it, or mount its file system again"
            ))),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(SinkError::Halt(format!(
                "{folder} does not exist: correct `path`, create it, or restart the worker with `create = true`"
            ))),
            Err(error) => Err(SinkError::Halt(format!(
                "{folder} cannot be opened: {error}; give this user permission on it and on the directories above it, \
                 or correct `path`"
            ))),
        }
    }

    async fn in_time<T>(&self, work: impl Future<Output = object_store::Result<T>>) -> Result<T, SinkError> {
        match tokio::time::timeout(self.config.timeout, work).await {
            Ok(outcome) => outcome.map_err(|error| self.judge(&error)),
            Err(_) => Err(self.slow()),
        }
    }

    fn slow(&self) -> SinkError {
        SinkError::Unavailable(format!("{} did not answer in time", self.config.place))
    }

    /// As [`Store::judge`], and names the file: the errors of a full or failing disk do not.
    fn judge_at(&self, path: &Path, error: &object_store::Error) -> SinkError {
        at(&format!("{}/{path}", self.config.place), self.judge(error))
    }

    fn judge(&self, error: &object_store::Error) -> SinkError {
        judge_store(error, "path", &self.aws.settings().secrets())
    }
}

fn at(file: &str, error: SinkError) -> SinkError {
    match error {
        SinkError::Unavailable(text) => SinkError::Unavailable(format!("{file}: {text}")),
        SinkError::Halt(text) => SinkError::Halt(format!("{file}: {text}")),
    }
}

/// Whether the existing part of the path to a directory is a directory.
fn can_be_created(folder: &FolderPath) -> Result<(), SinkError> {
    // The one above a relative path's first part is the current directory.
    let above = folder.ancestors().map(|above| if above.as_os_str().is_empty() { FolderPath::new(".") } else { above });
    match above.into_iter().find(|above| above.exists()) {
        Some(above) if !above.is_dir() => Err(SinkError::Halt(format!(
            "{} cannot be created: {} is not a directory; correct `path`",
            folder.display(),
            above.display()
        ))),
        Some(above) => folder::probe(above).map_err(|error| match folder::is_full(&error) {
            true => SinkError::Unavailable(format!("{} cannot be created: {error}; free some space", folder.display())),
            false => SinkError::Halt(format!(
                "{} cannot be created: {error}; give this user write permission on {}, or correct `path`",
                folder.display(),
                above.display()
            )),
        }),
        None => Ok(()),
    }
}

fn can_be_written(folder: &FolderPath) -> Result<(), SinkError> {
    folder::probe(folder).map_err(|error| match folder::is_full(&error) {
        true => SinkError::Unavailable(format!("{} cannot be written: {error}; free some space", folder.display())),
        false => SinkError::Halt(format!(
            "{} cannot be written: {error}; give this user write permission on it, or correct `path`",
            folder.display()
        )),
    })
}

fn path(day: i32, name: &str) -> Path {
    Path::from_iter([encode::folder(day).as_str(), name])
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn an_error_of_a_full_disk_names_the_file_and_is_retried() {
        let full = io::Error::from(ErrorKind::StorageFull);
        let error = object_store::Error::Generic { store: "LocalFileSystem", source: Box::new(full) };
        let shown = at("counts/date=2026-01-31/a.parquet", judge_store(&error, "path", &[]));
        assert!(matches!(shown, SinkError::Unavailable(_)), "{shown:?}");
        assert!(shown.to_string().starts_with("counts/date=2026-01-31/a.parquet: "), "{shown}");
    }
}
