//! A recorded step does what its operations do, and whatever cannot be recorded is an error that leaves the
//! device as it was. The tests are skipped where there is no device. What only the emulated device refuses is
//! not tried on a real one.

#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "a test fails by panicking; bits are compared")]

use candle_core::{DType, Device, Result, Tensor, Var};
use invaspread_tensor::cuda::testing::{Counts, on_device};
use invaspread_tensor::cuda::{HostLog, StepCounter, StepGraph, peak_memory};
use invaspread_tensor::{Conv2dConfig, Optimizer, OptimizerConfig, SgdConfig, assign, conv2d};

fn ones(shape: &[usize], device: &Device) -> Tensor {
    Tensor::ones(shape, DType::F32, device).unwrap()
}

fn sum(x: &Tensor) -> f32 {
    x.sum_all().unwrap().to_scalar().unwrap()
}

/// A weight, its optimizer and the counter of its steps. The loss is the sum of the weight, as a product:
/// candle's own sums bring their sizes to the device in each call.
struct Steps {
    weight: Var,
    ones: Tensor,
    optimizer: Optimizer,
    counter: StepCounter,
    log: HostLog,
}

impl Steps {
    fn new(device: &Device, shape: &[usize], steps: usize) -> Self {
        let weight = Var::from_tensor(&ones(shape, device)).unwrap();
        let config = OptimizerConfig::Sgd(SgdConfig { momentum: 0.5, weight_decay: 0.0 });
        Self {
            optimizer: Optimizer::new(vec![("w".to_owned(), weight.clone())], config).unwrap(),
            ones: ones(&[weight.elem_count(), 1], device),
            weight,
            counter: StepCounter::new(device, steps).unwrap(),
            log: HostLog::new(device, steps).unwrap(),
        }
    }

    fn step(&mut self) -> Result<()> {
        let loss = self.weight.as_tensor().reshape((1, ()))?.matmul(&self.ones)?.reshape(())?;
        self.optimizer.step_counted(&loss.backward()?, &self.counter)?;
        self.counter.end_step(&loss.detach(), &self.log)
    }

    fn losses(&self, steps: usize) -> Vec<f32> {
        self.log.wait().unwrap();
        (0..steps).map(|at| self.log.read(at).unwrap()).collect()
    }
}

#[test]
fn a_recorded_step_counts_itself_and_takes_the_rate_and_the_place_of_its_number() {
    on_device(|device| {
        let rates = [0.5, 0.25, 0.125, 1.0, 0.75];
        let mut plain = Steps::new(device, &[2, 3], rates.len());
        let mut recorded = Steps::new(device, &[2, 3], rates.len());
        for steps in [&mut plain, &mut recorded] {
            steps.counter.begin(&rates).unwrap();
            for _ in 0..2 {
                steps.step().unwrap();
            }
        }
        let graph = StepGraph::record(device, || recorded.step()).unwrap();
        // Recording runs nothing.
        assert_eq!(sum(recorded.weight.as_tensor()), sum(plain.weight.as_tensor()));
        for _ in 2..rates.len() {
            plain.step().unwrap();
            let before = Counts::now();
            graph.launch().unwrap();
            if let Some(before) = before {
                let launch = Counts::now().unwrap().since(before);
                assert_eq!(
                    (launch.graph_launches, launch.launches, launch.allocator_calls),
                    (1, 0, 0),
                    "{launch:?}"
                );
                assert!(launch.graph_nodes >= 3, "{launch:?}");
            }
        }
        assert_eq!(recorded.losses(rates.len()), plain.losses(rates.len()));
        assert_eq!(recorded.weight.to_vec2::<f32>().unwrap(), plain.weight.to_vec2::<f32>().unwrap());
        // The next epoch begins at its own first step.
        for steps in [&mut plain, &mut recorded] {
            steps.counter.begin(&rates[3..]).unwrap();
            steps.log.clear().unwrap();
        }
        plain.step().unwrap();
        graph.launch().unwrap();
        assert_eq!(recorded.losses(1), plain.losses(1));
        assert_eq!(recorded.log.read(1), None);
    });
}

#[test]
fn the_peak_of_memory_counts_what_a_recorded_step_allocates() {
    on_device(|device| {
        let bytes = 64 << 20;
        let graph =
            StepGraph::record(device, || Tensor::zeros(bytes / 4, DType::F32, device).map(drop)).unwrap();
        let before = peak_memory(device).unwrap().outside_search;
        assert!(Counts::now().is_none() || before < bytes as u64, "{before}");
        graph.launch().unwrap();
        let after = peak_memory(device).unwrap().outside_search;
        assert!(after >= bytes as u64, "{after}");
    });
}

#[test]
fn what_cannot_be_recorded_is_an_error_and_leaves_the_device_as_it_was() {
    on_device(|device| {
        let x = ones(&[4, 4], device);
        x.affine(2.0, 0.0).unwrap();
        let works = |what: &str| {
            assert_eq!(sum(&x), 16.0, "after {what}");
            let graph = StepGraph::record(device, || x.affine(2.0, 0.0).map(drop));
            graph.unwrap_or_else(|e| panic!("after {what}: {e}")).launch().unwrap();
        };
        works("nothing");
        let refused = |what: &str, step: &mut dyn FnMut() -> Result<()>| {
            let error = StepGraph::record(device, step).map(drop).unwrap_err().to_string();
            works(what);
            error
        };
        refused("a wait for a number", &mut || x.sum_all()?.to_scalar::<f32>().map(drop));
        refused("an error of the step's own", &mut || x.matmul(&x.narrow(0, 0, 3)?).map(drop));
        let mut kept = None;
        let error = refused("a tensor that is kept", &mut || {
            kept = Some(x.affine(3.0, 0.0)?);
            Ok(())
        });
        assert!(error.contains("keeps 1 tensor"), "{error}");
        // Its memory was never there.
        std::mem::forget(kept);
        if Counts::now().is_some() {
            // A real driver's answer to the next two is another, or comes later.
            refused("a copy from memory that is not page-locked", &mut || {
                Tensor::new(&[1f32, 2.0], &Device::Cpu)?.to_device(device).map(drop)
            });
            let mut earlier = Some(x.affine(3.0, 0.0).unwrap());
            refused("memory from before", &mut || {
                earlier = None;
                Ok(())
            });
        }
    });
}

#[test]
fn a_step_that_knows_replaced_memory_is_not_launched() {
    on_device(|device| {
        let mut steps = Steps::new(device, &[1, 1, 8, 8], 9);
        steps.counter.begin(&[0.5; 9]).unwrap();
        let x = ones(&[1, 2, 2, 8], device);
        let run = |weight: &Var| {
            conv2d(&x, &weight.as_detached_tensor(), Conv2dConfig::default()).map(drop).unwrap();
        };
        run(&steps.weight);
        steps.step().unwrap();
        let weight = steps.weight.clone();
        let graph = StepGraph::record(device, || steps.step()).unwrap();
        assert!(graph.is_valid());
        // The optimizer's step writes the weight as cuDNN takes it; that copy is made anew where somebody else
        // sets the weight.
        assign(&weight, &ones(&[1, 1, 8, 8], device)).unwrap();
        assert!(!graph.is_valid());
        let error = graph.launch().unwrap_err().to_string();
        assert!(error.contains("record it anew"), "{error}");
    });
}
