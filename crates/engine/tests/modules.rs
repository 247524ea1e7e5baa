//! Checks the order of the modules: each uses only those that the crate documentation lists before it.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test reads the sources")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Attribute, Item, UseTree};

/// The modules as the crate documentation lists them, the lowest first.
fn listed() -> Vec<String> {
    let documentation = fs::read_to_string(source("lib.rs")).unwrap();
    let items = documentation.lines().filter_map(|line| line.strip_prefix("//! - "));
    items.flat_map(|item| item.split("[`").skip(1).map(|link| link.split('`').next().unwrap().to_owned())).collect()
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(name)
}

/// The files of a module.
fn files(module: &str) -> Vec<PathBuf> {
    let mut found = vec![source(&format!("{module}.rs"))];
    let mut folders = vec![source(module)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    found
}

/// Collects the modules of the crate that a file uses outside of its tests.
#[derive(Default)]
struct Used(BTreeSet<String>);

impl Used {
    fn of(source: &str) -> BTreeSet<String> {
        let mut used = Self::default();
        used.visit_file(&syn::parse_file(source).unwrap());
        used.0
    }

    /// Records the first name below `crate` of each import.
    fn import(&mut self, tree: &UseTree) {
        match tree {
            UseTree::Path(path) => drop(self.0.insert(path.ident.to_string())),
            UseTree::Name(name) => drop(self.0.insert(name.ident.to_string())),
            UseTree::Rename(name) => drop(self.0.insert(name.ident.to_string())),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.import(tree)),
            UseTree::Glob(_) => drop(self.0.insert("*".to_owned())),
        }
    }
}

impl<'ast> Visit<'ast> for Used {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes: &[Attribute] = match item {
            Item::Mod(module) => &module.attrs,
            Item::Fn(function) => &function.attrs,
            Item::Impl(implementation) => &implementation.attrs,
            _ => &[],
        };
        if !attributes.iter().any(|attribute| attribute.path().is_ident("cfg")) {
            visit::visit_item(self, item);
        }
    }

    fn visit_use_tree(&mut self, tree: &'ast UseTree) {
        match tree {
            UseTree::Path(path) if path.ident == "crate" => self.import(&path.tree),
            UseTree::Group(_) => visit::visit_use_tree(self, tree),
            _ => {}
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let mut segments = path.segments.iter().map(|segment| segment.ident.to_string());
        if segments.next().is_some_and(|first| first == "crate") {
            self.0.extend(segments.next());
        }
        visit::visit_path(self, path);
    }
}

#[test]
fn modules_use_only_modules_before_them() {
    let listed = listed();
    for (place, module) in listed.iter().enumerate() {
        for file in files(module) {
            let used = Used::of(&fs::read_to_string(&file).unwrap());
            let wrong: Vec<&String> = used.iter().filter(|module| !listed[..=place].contains(module)).collect();
            assert!(wrong.is_empty(), "{} uses {wrong:?}", file.display());
        }
    }
}

#[test]
fn every_module_is_listed() {
    let file = syn::parse_file(&fs::read_to_string(source("lib.rs")).unwrap()).unwrap();
    let modules = file.items.iter().filter_map(|item| match item {
        Item::Mod(module) if module.attrs.iter().all(|attribute| !attribute.path().is_ident("cfg")) => {
            Some(module.ident.to_string())
        }
        _ => None,
    });
    assert_eq!(modules.collect::<BTreeSet<_>>(), listed().into_iter().collect());
}

#[test]
fn finds_all_uses_in_a_file() {
    let used = Used::of(
        "use crate::{api, facts::{self, Facts}}; fn f(x: crate::policy::Policy) { crate::rules::all(); use crate::cel as c; }
         #[cfg(test)] mod tests { use crate::decision::decide; }",
    );
    let expected = ["api", "cel", "facts", "policy", "rules"].map(str::to_owned);
    assert_eq!(used, expected.into());
}
