#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::engine::{Curve, Engine, EngineError, Port, Signature};
use crate::metrics::{Metrics, ModelMetrics};
use crate::scheduling::{Engines, Load, Priority};
use crate::tensor::{DataType, Tensor};
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::ThreadId;
use std::time::Duration;

/// Answers with its inputs, after a time and while the gate is open; refuses negative numbers; counts how many run at
/// once, and on which threads.
struct Echo {
    signature: Signature,
    takes: Duration,
    gate: Arc<Gate>,
    at_once: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    threads: Arc<Mutex<Vec<ThreadId>>>,
}

impl Engine for Echo {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&mut self, inputs: &[Tensor], _: &[usize]) -> Result<Vec<Tensor>, EngineError> {
        self.threads.lock().push(std::thread::current().id());
        let running = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        std::thread::sleep(self.takes);
        self.gate.pass();
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        let negative = |input: &Tensor| {
            input
                .elements::<f32>()
                .is_some_and(|x| x.iter().any(|&x| x < 0.0))
        };
        if inputs.iter().any(negative) {
            return Err(EngineError::Refused("negative".into()));
        }
        Ok(inputs.to_vec())
    }
}

/// While it is closed, no run ends.
#[derive(Default)]
struct Gate {
    is_closed: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn close(&self) {
        *self.is_closed.lock() = true;
    }

    fn open(&self) {
        *self.is_closed.lock() = false;
        self.opened.notify_all();
    }

    fn pass(&self) {
        self.opened
            .wait_while(&mut self.is_closed.lock(), |closed| *closed);
    }
}

struct Bench {
    scheduler: Scheduler,
    /// Whoever writes holds all runs up.
    gate: Arc<Gate>,
    at_once: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    threads: Arc<Mutex<Vec<ThreadId>>>,
    metrics: Metrics,
    cores: usize,
}

impl Bench {
    fn new(cores: usize) -> Self {
        Self {
            scheduler: Scheduler::start(cores, None).unwrap(),
            gate: Arc::default(),
            at_once: Arc::default(),
            most: Arc::default(),
            threads: Arc::default(),
            metrics: Metrics::new("", "", ""),
            cores,
        }
    }

    fn add(&self, takes: Duration, batch: usize, all_cores: bool) -> (Arc<QueueHandle>, ModelMetrics) {
        let port = Port::new("x", DataType::Fp32, vec![-1]);
        let engine = || {
            Box::new(Echo {
                signature: Signature::new(vec![port.clone()], vec![port.clone()], 1),
                takes,
                gate: Arc::clone(&self.gate),
                at_once: Arc::clone(&self.at_once),
                most: Arc::clone(&self.most),
                threads: Arc::clone(&self.threads),
            }) as Box<dyn Engine>
        };
        let mut curve = Curve::tried(true);
        curve.add(1, takes);
        curve.add(batch, takes);
        let metrics = self.metrics.model(&format!("echo-{}", takes.as_millis()));
        let queue = self.scheduler.add(QueueSettings {
            engines: Engines {
                single_core: (0..self.cores).map(|_| engine()).collect(),
                all_cores: all_cores.then(engine),
            },
            capacity: 64,
            curve,
            tuner: None,
            metrics: metrics.clone(),
        });
        (Arc::new(queue), metrics)
    }
}

fn row(value: f32) -> Prepare {
    Box::new(move || Ok(vec![Tensor::from_vec(vec![1], vec![value]).unwrap()]))
}

fn first(completed: &Completed) -> f32 {
    completed.outputs[0].elements::<f32>().unwrap()[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_panics_fails_alone() {
    let bench = Bench::new(1);
    let (queue, _) = bench.add(Duration::ZERO, 1, false);
    let bad = queue.run(Box::new(|| panic!("a bug")), vec![0], RunOptions::default());
    assert!(matches!(bad.await, Err(RunError::Job(JobError::Lost(_)))));
    let good = queue.run(row(9.0), vec![0], RunOptions::default()).await.unwrap();
    assert_eq!(first(&good), 9.0);
}

async fn until(queue: &QueueHandle, holds: impl Fn(&Load) -> bool) {
    while !holds(&queue.load()) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_run_together_and_each_gets_its_own_answer() {
    let bench = Bench::new(1);
    let (queue, _) = bench.add(Duration::from_millis(30), 4, false);
    let run = |value| {
        let queue = Arc::clone(&queue);
        tokio::spawn(async move { queue.run(row(value), vec![0], RunOptions::default()).await })
    };
    let gate = Arc::clone(&bench.gate);
    gate.close();
    let running = run(0.0);
    until(&queue, |load| load.running == 1).await;
    let waiting: Vec<_> = [1.0, 2.0, -3.0, 4.0].map(run).into();
    until(&queue, |load| load.queued == 4).await;
    gate.open();
    assert!(running.await.unwrap().is_ok());
    for (job, value) in waiting.into_iter().zip([1.0, 2.0, -3.0, 4.0]) {
        match job.await.unwrap() {
            Ok(completed) => assert_eq!(first(&completed), value),
            // It made the batch fail, so only it must get the error.
            Err(error) => assert!(value < 0.0, "{error:?}"),
        }
    }
    let text = bench.metrics.encode().unwrap();
    // One run of one job, one of four that failed, and then each of these alone.
    let has = |line: &str| text.lines().any(|other| other == line);
    assert!(
        has("modelservice_batch_size_bucket{le=\"1.0\",model=\"echo-30\"} 5"),
        "{text}"
    );
    assert!(
        has("modelservice_batch_size_bucket{le=\"4.0\",model=\"echo-30\"} 6"),
        "{text}"
    );
}

// Invalid requests must not look like load.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_fails_counts_as_served_and_inputs_that_cannot_be_made_do_not() {
    let bench = Bench::new(1);
    let (queue, _) = bench.add(Duration::ZERO, 1, false);
    let run = |inputs| queue.run(inputs, vec![0], RunOptions::default());
    assert!(run(Box::new(|| panic!("a bug"))).await.is_err());
    assert!(run(row(-1.0)).await.is_err());
    assert!(run(row(1.0)).await.is_ok());
    // A run is counted a moment after its job has the answer.
    while queue.totals().demand.served < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(queue.totals().demand.served, 2);
}

// More concurrent runs than cores would slow all of them down.
#[tokio::test(flavor = "multi_thread")]
async fn no_more_runs_at_once_than_there_are_cores_whatever_the_models() {
    let bench = Bench::new(2);
    let queues = [
        bench.add(Duration::from_millis(1), 1, false).0,
        bench.add(Duration::from_millis(2), 1, true).0,
    ];
    let jobs: Vec<_> = (0..40)
        .map(|index| {
            let queue = Arc::clone(&queues[index % 2]);
            tokio::spawn(async move { queue.run(row(1.0), vec![0], RunOptions::default()).await })
        })
        .collect();
    for job in jobs {
        assert!(job.await.unwrap().is_ok());
    }
    assert_eq!(bench.most.load(Ordering::SeqCst), 2);
}

// A model with many requests must not starve another on the same server.
#[tokio::test(flavor = "multi_thread")]
async fn two_saturated_models_share_the_cores_evenly() {
    let bench = Bench::new(2);
    let models = [
        bench.add(Duration::from_millis(2), 1, false),
        bench.add(Duration::from_millis(7), 1, false),
    ];
    let end = Instant::now() + Duration::from_millis(1500);
    let mut clients = Vec::new();
    for (queue, _) in &models {
        for _ in 0..6 {
            let queue = Arc::clone(queue);
            clients.push(tokio::spawn(async move {
                while Instant::now() < end {
                    queue.run(row(1.0), vec![0], RunOptions::default()).await.unwrap();
                }
            }));
        }
    }
    for client in clients {
        client.await.unwrap();
    }
    let busy = models.map(|(_, metrics)| metrics.busy.get());
    let share = busy[0] / (busy[0] + busy[1]);
    assert!((0.4..=0.6).contains(&share), "{busy:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_the_wait_and_priority_shortens_it() {
    let bench = Bench::new(1);
    let (queue, _) = bench.add(Duration::from_millis(50), 1, false);
    let spawn = |value, options| {
        let queue = Arc::clone(&queue);
        tokio::spawn(async move {
            queue
                .run(row(value), vec![0], options)
                .await
                .map(|_| Instant::now())
        })
    };
    let gate = Arc::clone(&bench.gate);
    gate.close();
    let running = spawn(0.0, RunOptions::default());
    until(&queue, |load| load.running == 1).await;
    let normal = spawn(1.0, RunOptions::default());
    until(&queue, |load| load.queued == 1).await;
    let urgent = RunOptions {
        priority: Priority::High,
        deadline: None,
        ..RunOptions::default()
    };
    let high = spawn(2.0, urgent);
    until(&queue, |load| load.queued == 2).await;
    let late = RunOptions {
        priority: Priority::Normal,
        deadline: Some(Instant::now() + Duration::from_millis(1)),
        ..RunOptions::default()
    };
    let refused = queue.run(row(3.0), vec![0], late).await;
    assert!(matches!(
        refused,
        Err(RunError::Rejected(Rejected::OutOfReach { .. }))
    ));
    gate.open();
    running.await.unwrap().unwrap();
    let (high, normal) = (high.await.unwrap().unwrap(), normal.await.unwrap().unwrap());
    assert!(high < normal);
}

#[tokio::test(flavor = "multi_thread")]
async fn runners_finish_what_waits_before_they_end() {
    let bench = Bench::new(2);
    // So slow that runners run it.
    let (queue, _) = bench.add(Duration::from_millis(30), 1, false);
    let gate = Arc::clone(&bench.gate);
    gate.close();
    let jobs: Vec<_> = (0..6)
        .map(|_| {
            let queue = Arc::clone(&queue);
            tokio::spawn(async move { queue.run(row(1.0), vec![0], RunOptions::default()).await })
        })
        .collect();
    until(&queue, |load| load.queued == 4).await;
    gate.open();
    drop((bench, queue));
    for job in jobs {
        assert!(job.await.unwrap().is_ok());
    }
}

const TYPICAL: RunOptions = RunOptions {
    priority: Priority::Normal,
    deadline: None,
    typical_cost: true,
};

// Handing it to a runner and back would take as long as the run.
#[tokio::test]
async fn a_small_models_job_is_run_by_the_network_thread_and_a_slow_models_by_a_runner() {
    let bench = Bench::new(2);
    bench.scheduler.enable_inline_execution();
    let (small, _) = bench.add(Duration::from_micros(100), 1, false);
    let (slow, _) = bench.add(Duration::from_millis(20), 1, false);
    let here = std::thread::current().id();
    let last = || bench.threads.lock().last().copied();
    // A runner that does not sleep yet may take one or another.
    for _ in 0..100 {
        let completed = small.run(row(1.0), vec![0], TYPICAL).await.unwrap();
        assert_eq!(first(&completed), 1.0);
        if last() == Some(here) {
            break;
        }
    }
    assert_eq!(last(), Some(here));
    slow.run(row(2.0), vec![0], TYPICAL).await.unwrap();
    assert_ne!(last(), Some(here));
}

// No other thread would run it.
#[tokio::test]
async fn a_job_from_another_thread_wakes_the_network_thread() {
    let bench = Bench::new(2);
    bench.scheduler.enable_inline_execution();
    let (queue, _) = bench.add(Duration::from_micros(100), 1, false);
    let other = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(queue.run(row(3.0), vec![0], TYPICAL))
    });
    let answer = tokio::time::timeout(Duration::from_secs(30), other).await;
    assert_eq!(first(&answer.unwrap().unwrap().unwrap()), 3.0);
}

/// Frees memory when the test says so.
struct Keeper {
    signature: Signature,
    begun: Sender<()>,
    go: Receiver<()>,
}

impl Engine for Keeper {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&mut self, inputs: &[Tensor], _: &[usize]) -> Result<Vec<Tensor>, EngineError> {
        Ok(inputs.to_vec())
    }

    fn holds_memory(&self) -> bool {
        true
    }

    fn free_memory(&mut self) {
        self.begun.send(()).unwrap();
        self.go.recv().unwrap();
    }
}

// It finds no engine, and nobody else would look again.
#[tokio::test]
async fn a_job_that_comes_while_its_engine_frees_memory_is_run_afterwards() {
    let bench = Bench::new(1);
    bench.scheduler.enable_inline_execution();
    let ((begun_sender, begun), (go, go_receiver)) = (channel(), channel());
    let keeper = Keeper {
        signature: Signature::new(Vec::new(), Vec::new(), 1),
        begun: begun_sender,
        go: go_receiver,
    };
    let mut curve = Curve::tried(true);
    curve.add(1, Duration::from_micros(100));
    let queue = bench.scheduler.add(QueueSettings {
        engines: Engines {
            single_core: vec![Box::new(keeper)],
            all_cores: None,
        },
        capacity: 1,
        curve,
        tuner: None,
        metrics: bench.metrics.model("keeper"),
    });
    assert_eq!(bench.scheduler.idle_holders(), [0]);
    let freeing = std::thread::spawn(move || bench.scheduler.free_memory(&[0]));
    begun.recv().unwrap();
    let job = tokio::spawn(async move { queue.run(row(4.0), vec![0], TYPICAL).await });
    for _ in 0..10 {
        // The job is queued, and the network thread looks for an engine.
        tokio::task::yield_now().await;
    }
    go.send(()).unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(30), job).await;
    assert_eq!(first(&answer.unwrap().unwrap().unwrap()), 4.0);
    freeing.join().unwrap();
}
