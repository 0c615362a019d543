//! Functions of the embedder: what they get, what comes of what they return, and when they are forgotten.

use std::cell::RefCell;
use std::rc::Rc;

use ringspun_janet::{Value, Vm};

#[test]
fn values_go_both_ways() {
    let mut vm = Vm::new().unwrap();
    let seen = Rc::new(RefCell::new(Vec::new()));
    let list = seen.clone();
    vm.define("test/note", "(test/note & values)", move |arguments| {
        list.borrow_mut().extend_from_slice(arguments);
        Ok(arguments.last().cloned().unwrap_or(Value::Nil))
    })
    .unwrap();
    for (source, expected) in [
        (r#"(string/format "%q" (test/note))"#, "nil"),
        (r#"(string/format "%q" (test/note nil true 1.5 @"a\0b"))"#, r#""a\0b""#),
        (r#"(string/format "%q" (test/note :keyword))"#, r#""keyword""#),
        (r#"(string/format "%q" (test/note false))"#, "false"),
        // Also from a fiber that waits meanwhile, and by another name.
        ("(def f test/note) (def c (ev/chan)) (ev/go |(do (ev/sleep 0) (ev/give c (f 7)))) (ev/take c)", "7"),
        ("(string ((dyn 'test/note) :doc))", "(test/note & values)"),
    ] {
        assert_eq!(vm.run_string(source).unwrap(), expected, "{source}");
    }
    let text = |text: &str| Value::from(text);
    let [nil, yes, no] = [Value::Nil, Value::Boolean(true), Value::Boolean(false)];
    assert_eq!(
        *seen.borrow(),
        [nil, yes, Value::Number(1.5), text("a\0b"), text("keyword"), no, Value::Number(7.0)]
    );
    assert_eq!((text("a").as_text(), text("a").as_number()), (Some("a".to_string()), None));
    assert_eq!(
        (text("a").to_string(), Value::Number(2.0).to_string()),
        ("\"a\"".to_string(), "2".to_string())
    );
}

#[test]
fn errors_and_panics_are_raised_in_janet() {
    let mut vm = Vm::new().unwrap();
    vm.define("fail", "", |_| Err("no luck".to_string())).unwrap();
    vm.define("burst", "", |_| panic!("oh")).unwrap();
    let caught = |code: &str| format!("(try {code} ([err] (string \"caught \" err)))");
    assert_eq!(vm.run_string(&caught("(fail)")).unwrap(), "caught no luck");
    assert_eq!(vm.run_string(&caught("(burst)")).unwrap(), "caught panicked: oh");
    let error = vm.run_string(&caught("(fail @{})")).unwrap();
    assert!(error.contains("expected nil, a boolean, a number or a text"), "{error}");
    assert!(vm.run_string("(fail)").unwrap_err().to_string().contains("no luck"));
    for name in ["", "a b", "1a", "a)", "\u{e9}"] {
        let error = vm.define(name, "", |_| Ok(Value::Nil)).unwrap_err();
        assert!(error.to_string().contains("expected a symbol"), "{error}");
    }
}

#[test]
fn functions_survive_the_collector_and_end_with_the_vm() {
    let held = Rc::new(());
    let mut vm = Vm::new().unwrap();
    let captured = held.clone();
    vm.define("held", "", move |_| Ok(Value::Number(Rc::strong_count(&captured) as f64))).unwrap();
    let source = "(repeat 100 (gccollect) (array/new 1000)) (held)";
    assert_eq!(vm.run_string(source).unwrap(), "2");
    drop(vm);
    assert_eq!(Rc::strong_count(&held), 1);
    let mut vm = Vm::new().unwrap();
    assert!(vm.run_string("(held)").is_err());
}
