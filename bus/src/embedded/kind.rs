use std::path::Path;

use super::EmbeddedBus;
use crate::BusKind;

pub(crate) const KIND: BusKind = BusKind {
    name: "embedded",
    scheme: "embedded:",
    form: "embedded:PATH",
    place: "path",
    properties: None,
    complete: |path| Ok(path.to_owned()),
    // Whether a path is valid is only known when it is opened.
    check: |_| Ok(()),
    check_each: |_| Ok(()),
    open: |address, missing| Ok(Box::new(EmbeddedBus::open_as(Path::new(address.place()), missing)?)),
    is_file: true,
};
