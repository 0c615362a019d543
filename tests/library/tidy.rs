//! The rules of the house, held by the project's own files. Each rule has planted files beside it that break it.

mod lengths;
mod links;
mod rings;
mod scripts;
mod tree;
mod words;

use tree::Tree;

fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn no_ring_of_files_imports_itself() {
    let tree = Tree::of_project();
    assert!(
        tree.has("runtime/src/lib.rs") && tree.has("src/lib.rs"),
        "the sources are not where they are looked for"
    );
    assert_none(&rings::faults(&tree));
}

#[test]
fn lines_functions_and_files_are_short_and_files_say_what_they_are_for() {
    assert_none(&lengths::faults(&Tree::of_project()));
}

#[test]
fn texts_have_no_forbidden_words() {
    assert_none(&words::faults(&Tree::of_project()));
}

#[test]
fn files_sections_and_scripts_that_are_named_exist() {
    assert_none(&links::faults(&Tree::of_project()));
}

#[test]
fn every_script_answers_help_and_builds_nothing_for_it() {
    assert_none(&scripts::faults(&Tree::of_project()));
}
