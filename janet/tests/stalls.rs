//! Janet fibers that keep the loop of their VM are told with their stack while they run.

use std::fs;
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use ringspun_janet::{StallWatch, Vm};

const LIMIT: Duration = Duration::from_millis(20);
/// Far longer than anything here takes; only a hang comes to it.
const HANG: Duration = Duration::from_secs(60);
/// How many stalls of each kind are planted.
const PLANTED: usize = 25;

/// Each keeps the loop until its argument, a function, says that it is enough.
const STALLS: &str = r#"
(defn computes [enough?] (var sum 0) (while (not (enough?)) (loop [i :range [0 1000]] (+= sum i))) sum)
(defn sleeps [enough?] (while (not (enough?)) (os/sleep 0.001)))
(defn collects [enough?] (while (not (enough?)) (array/new 100) (gccollect)))
(defn deep [enough? &opt depth] (default depth 5) (if (= depth 0) (computes enough?) (+ 1 (deep enough? (dec depth)))))
(defn nests [enough?]
  (resume (fiber/new (fn inner [] (resume (fiber/new (fn innermost [] (+ 1 (computes enough?)))))))))
(defn sorts [enough?] (while (not (enough?)) (sort-by (fn by [x] (- x)) (range 100))))
"#;
/// What must be told of each, the innermost function first.
const FRAMES: [(&str, &[&str]); 6] = [
    ("computes", &["in computes [", "/stalls] on line 2,"]),
    ("sleeps", &["in sleeps [", "/stalls] on line 3,"]),
    ("collects", &["in collects [", "/stalls] on line 4,"]),
    ("deep", &["in computes", "in deep [", "/stalls] on line 5,", "in deep [", "/stalls] on line 5,"]),
    ("nests", &["in computes", "in innermost", "in inner", "in nests [", "/stalls] on line 7,"]),
    ("sorts", &["in sorts [", "/stalls] on line 8,"]),
];

fn watched(limit: Duration) -> (StallWatch, Receiver<String>) {
    let (tell, told) = mpsc::channel();
    let watch = StallWatch::start(limit, move |stall| {
        // Nobody may listen any more.
        let _ = tell.send(stall.to_string());
    });
    (watch.unwrap(), told)
}

/// Whether the texts are in `text`, one after the other.
fn has_in_order(text: &str, parts: &[&str]) -> bool {
    let mut rest = text;
    parts.iter().all(|part| {
        let Some((_, behind)) = rest.split_once(part) else { return false };
        rest = behind;
        true
    })
}

/// What is told of a stall of this function; or else whether anything is, such as the compiler before it. That may
/// belong to the same stall on a busy machine, and each is told once.
fn told_of(name: &str, told: &Receiver<String>) -> Result<String, bool> {
    let mut is_told = false;
    loop {
        match told.recv_timeout(if is_told { Duration::from_secs(1) } else { HANG }) {
            Ok(text) if text.contains(&format!("in {name} ")) => return Ok(text),
            Ok(_) => is_told = true,
            Err(_) => return Err(is_told),
        }
    }
}

#[test]
fn every_planted_stall_is_told_with_its_stack() {
    let folder = std::env::temp_dir().join(format!("ringspun-stalls-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let program = folder.join("stalls");
    fs::write(&program, STALLS).unwrap();
    let (_watch, told) = watched(LIMIT);
    let told = Mutex::new(told);
    let mut vm = Vm::new().unwrap();
    vm.run_string(&format!("(merge-into (curenv) (dofile {program:?})) nil")).unwrap();
    for (name, frames) in FRAMES {
        for planted in 0..PLANTED {
            let stop = folder.join(format!("{name}{planted}"));
            let mut plant = || {
                let _ = fs::remove_file(&stop);
                thread::scope(|scope| {
                    let told = scope.spawn(|| {
                        let text = told_of(name, &told.lock().unwrap());
                        fs::write(&stop, "").unwrap();
                        text
                    });
                    vm.run_string(&format!("({name} (fn [] (os/stat {stop:?} :mode)))")).unwrap();
                    told.join().unwrap()
                })
            };
            let text = loop {
                match plant() {
                    Ok(text) => break text,
                    Err(is_told) => assert!(is_told, "{name}: nothing is told"),
                }
            };
            assert!(has_in_order(&text, frames), "{name}: {text}");
            assert!(
                text.starts_with("a Janet VM stalls: a fiber has kept its loop for 20ms\n  in "),
                "{text}"
            );
        }
    }
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn only_the_vm_that_stalls_is_told() {
    let (watch, told) = watched(Duration::from_millis(400));
    let others = thread::spawn(|| {
        // Its loop turns all the time, as that of a thread of its own does.
        let turns =
            "(def end (+ (os/clock :monotonic) 1.5)) (while (< (os/clock :monotonic) end) (ev/sleep 0))";
        let program =
            format!("(ev/thread (fn turns-there [] {turns}) nil :n) (defn turns [] {turns}) (turns)");
        Vm::new().unwrap().run_string(&program).unwrap();
    });
    let mut vm = Vm::new().unwrap();
    // The watch also sees what other tests plant. It looks some times per stall, or later on a busy machine.
    let (mut all, mut is_told) = (Vec::new(), false);
    while !others.is_finished() || !is_told {
        vm.run_string("(defn stalls [] (os/sleep 0.6)) (stalls)").unwrap();
        let came = Vec::from_iter(told.try_iter());
        is_told |= came.iter().any(|text| text.contains("in os/sleep") && text.contains("in stalls"));
        all.extend(came);
    }
    others.join().unwrap();
    drop(watch);
    all.extend(told);
    let told = all;
    assert!(!told.iter().any(|text| text.contains("in turns")), "{told:?}");
}

#[test]
fn a_vm_that_does_not_answer_tells_what_it_runs() {
    let mut vm = Vm::new().unwrap();
    let inquirer = vm.inquirer();
    assert_eq!(inquirer.running(), None);
    let asking = thread::spawn(move || {
        loop {
            if let Some(stack) = inquirer.running().filter(|stack| stack.contains("in os/sleep [")) {
                // Unless it had just ended.
                if inquirer.dump(Duration::from_millis(1)).is_none() {
                    return stack;
                }
            }
        }
    });
    while !asking.is_finished() {
        vm.run_string("(defn blocks [] (os/sleep 0.2)) (blocks)").unwrap();
    }
    let stack = asking.join().unwrap();
    assert!(has_in_order(&stack, &["\n  in os/sleep [", "\n  in blocks ", "\n  in "]), "{stack}");
}

#[test]
fn in_a_forked_child_the_watch_can_be_dropped() {
    let (watch, _told) = watched(LIMIT);
    // SAFETY: the child only drops the watch and exits.
    match unsafe { nix::unistd::fork() }.unwrap() {
        nix::unistd::ForkResult::Child => {
            drop(watch);
            // SAFETY: ends the process without running what belongs to the parent.
            unsafe { libc::_exit(7) };
        }
        nix::unistd::ForkResult::Parent { child } => {
            let ended = nix::sys::wait::waitpid(child, None).unwrap();
            assert_eq!(ended, nix::sys::wait::WaitStatus::Exited(child, 7));
        }
    }
}
