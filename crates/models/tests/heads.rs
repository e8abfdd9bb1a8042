//! Tests of heads, of passes that continue from another pass, and of copies that follow a network: their
//! gradients in f64 against finite differences, their names and their states.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Result, Tensor, Var};
use invaspread_models::{LastNorm, Mlp, MlpConfig, Mode, Momentum, Network, Output, ResNetConfig};
use invaspread_tensor::assign;
use std::collections::HashMap;

/// Returns numbers between -1 and 1 that depend on `number` and on their place.
fn numbers(count: usize, number: usize) -> Vec<f64> {
    (0..count).map(|i| ((i * 37 + number * 101 + 7) as f64 * 0.7311).sin()).collect()
}

fn tensor(shape: &[usize], number: usize, dtype: DType) -> Tensor {
    let values = numbers(shape.iter().product(), number);
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

fn values(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn small_network(dtype: DType) -> Network {
    let config = ResNetConfig { width: 8, embedding: 6, pool: 0, dtype, ..Default::default() };
    Network::new(config, 3).unwrap()
}

/// Returns `Σ c y` with fixed numbers c that differ.
fn weighted(y: &Tensor) -> Result<Tensor> {
    let weights = tensor(y.dims(), 5, y.dtype());
    (y * weights)?.sum_all()
}

/// Returns the loss of some rows after a head, and its gradients.
fn through(network: &Network, head: &Mlp, x: &Tensor) -> Result<(f64, GradStore, Output)> {
    let mut output = network.forward(x, Mode::Train)?;
    let y = output.through(&output.pooled.clone(), |tape, x| {
        let y = head.forward(tape, x, Mode::Train)?;
        tape.l2_normalize(&y)
    })?;
    let loss = weighted(&y)?;
    let value = values(&loss)[0];
    Ok((value, output.backward(&loss)?, output))
}

/// Checks the first few entries of every parameter of the head and of some parameters of the network before
/// it.
#[test]
fn gradients_agree_with_finite_differences() {
    let network = small_network(DType::F64);
    let x = tensor(&[4, 8, 8, 3], 0, DType::F64);
    for (layers, batch_norm, last) in [
        (1, true, LastNorm::None),
        (2, true, LastNorm::None),
        (2, true, LastNorm::Affine),
        (3, true, LastNorm::Plain),
        (2, false, LastNorm::None),
        (3, false, LastNorm::Affine),
    ] {
        let mut config = MlpConfig::new(64, 5, 4);
        (config.layers, config.batch_norm, config.last, config.dtype) =
            (layers, batch_norm, last, DType::F64);
        let head = Mlp::new("head", &config, 7, 0).unwrap();
        let (_, gradients, _) = through(&network, &head, &x).unwrap();
        let mut parameters = head.parameters();
        parameters.extend(network.parameters().into_iter().filter(|(name, _)| name.contains("layer4.1")));
        let what = format!("{layers} {batch_norm} {last:?}");
        assert_as_finite_differences(&parameters, &gradients, &what, || {
            through(&network, &head, &x).unwrap().0
        });
    }
}

/// Stacked passes of two sizes continue through one head, whose batch norm uses the statistics of all rows.
#[test]
fn gradients_of_stacked_passes_agree_with_finite_differences() {
    let network = small_network(DType::F64);
    let mut config = MlpConfig::new(64, 5, 4);
    config.dtype = DType::F64;
    let head = Mlp::new("head", &config, 7, 0).unwrap();
    let (large, small) = (tensor(&[3, 16, 16, 3], 0, DType::F64), tensor(&[4, 8, 8, 3], 1, DType::F64));
    let stacked = || {
        let passes = [&large, &small].map(|x| network.forward(x, Mode::Train).unwrap());
        let alone: Vec<Vec<f64>> = passes.iter().map(|pass| values(&pass.embedding)).collect();
        let mut output = Output::stacked(passes.into()).unwrap();
        assert_eq!(values(&output.embedding), alone.concat());
        let y = output.through(&output.pooled.clone(), |tape, x| head.forward(tape, x, Mode::Train)).unwrap();
        // The loss depends on the embedding and on the head's output, so each pass gets both gradients.
        let loss = (weighted(&y).unwrap() + weighted(&output.embedding).unwrap()).unwrap();
        (values(&loss)[0], output.backward(&loss).unwrap())
    };
    let gradients = stacked().1;
    let mut parameters = head.parameters();
    let of_network = |name: &str| name.contains("layer4.1") || name.starts_with("linear");
    parameters.extend(network.parameters().into_iter().filter(|(name, _)| of_network(name)));
    assert_as_finite_differences(&parameters, &gradients, "stacked", || stacked().0);
    let idle = [&large, &small].map(|x| network.forward(x, Mode::TrainWithoutGradient).unwrap());
    let mut idle = Output::stacked(idle.into()).unwrap();
    assert_eq!(idle.pooled.dims(), [7, 64]);
    assert!(idle.backward(&weighted(&idle.pooled).unwrap()).is_err(), "no gradients were recorded");
    assert!(Output::stacked(Vec::new()).is_err());
}

/// Compares some entries of each parameter's gradient with differences of `loss`.
fn assert_as_finite_differences(
    parameters: &[(String, Var)],
    gradients: &GradStore,
    what: &str,
    loss: impl Fn() -> f64,
) {
    for (name, parameter) in parameters {
        let gradient = values(gradients.get(parameter).unwrap_or_else(|| panic!("{name} has no gradient")));
        let before = values(parameter);
        let largest = gradient.iter().fold(1e-3f64, |m, g| m.max(g.abs()));
        for place in (0..before.len()).step_by(before.len().div_ceil(5)) {
            let at = |delta: f64| {
                let mut moved = before.clone();
                moved[place] += delta;
                let moved = Tensor::from_vec(moved, parameter.shape(), &Device::Cpu).unwrap();
                assign(parameter, &moved).unwrap();
                loss()
            };
            let numeric = (at(1e-6) - at(-1e-6)) / 2e-6;
            at(0.0);
            let away = (numeric - gradient[place]).abs() / largest;
            assert!(away < 1e-4, "{what}, {name}[{place}]: {numeric} {}", gradient[place]);
        }
    }
}

#[test]
fn names_are_those_of_a_sequential() {
    let names = |batch_norm, last, layers| {
        let mut config = MlpConfig::new(8, 6, 4);
        (config.batch_norm, config.last, config.layers) = (batch_norm, last, layers);
        let head = Mlp::new("projector", &config, 0, 0).unwrap();
        let names: Vec<String> = head.state_dict().unwrap().into_iter().map(|(name, _)| name).collect();
        names.join(" ").replace("projector.", "")
    };
    let norm =
        |n: usize| format!("{n}.weight {n}.bias {n}.running_mean {n}.running_var {n}.num_batches_tracked");
    assert_eq!(names(true, LastNorm::None, 2), format!("0.weight {} 3.weight 3.bias", norm(1)));
    assert_eq!(names(false, LastNorm::None, 2), "0.weight 0.bias 2.weight 2.bias");
    let plain = "7.running_mean 7.running_var 7.num_batches_tracked";
    let want = format!("0.weight {} 3.weight {} 6.weight {plain}", norm(1), norm(4));
    assert_eq!(names(true, LastNorm::Plain, 3), want);
    assert_eq!(names(true, LastNorm::Affine, 1), format!("0.weight {}", norm(1)));
}

#[test]
fn first_weights_depend_on_seed_and_number_and_lie_within_their_bound() {
    let weight = |seed, head| {
        let mlp = Mlp::new("head", &MlpConfig::new(64, 32, 16), seed, head).unwrap();
        values(&mlp.parameters()[0].1)
    };
    assert_eq!(weight(1, 0), weight(1, 0));
    assert_ne!(weight(1, 0), weight(1, 1));
    assert_ne!(weight(1, 0), weight(2, 0));
    assert!(weight(1, 0).iter().all(|w| w.abs() <= 0.125) && weight(1, 0).iter().any(|w| w.abs() > 0.12));
    assert!(Mlp::new("head", &MlpConfig::new(0, 32, 16), 0, 0).is_err());
}

#[test]
fn a_state_goes_on_bit_for_bit_and_another_is_refused() {
    let head = |seed| Mlp::new("head", &MlpConfig::new(64, 16, 4), seed, 0).unwrap();
    let (first, second) = (head(0), head(1));
    let x = tensor(&[6, 64], 1, DType::F32);
    first.run(&x, Mode::TrainWithoutGradient).unwrap();
    let state: HashMap<String, Tensor> = first.state_dict().unwrap().into_iter().collect();
    second.load_state_dict(&state).unwrap();
    for mode in [Mode::Evaluate, Mode::TrainWithoutGradient, Mode::Evaluate] {
        assert_eq!(values(&first.run(&x, mode).unwrap()), values(&second.run(&x, mode).unwrap()));
    }
    let mut lacking = state.clone();
    lacking.remove("head.1.running_mean");
    let error = second.load_state_dict(&lacking).unwrap_err().to_string();
    assert!(error.contains("head.1.running_mean is missing"), "{error}");
    let mut more = state.clone();
    more.insert("head.9.weight".to_owned(), x.clone());
    let error = second.load_state_dict(&more).unwrap_err().to_string();
    assert!(error.contains("head.9.weight is not an entry"), "{error}");
    let other = Mlp::new("head", &MlpConfig::new(64, 17, 4), 0, 0).unwrap();
    let error = other.load_state_dict(&state).unwrap_err().to_string();
    assert!(error.contains("head.0.weight") && error.contains("[17, 64]"), "{error}");
    assert!(second.run(&x, Mode::Train).unwrap_err().to_string().contains("Output::through"));
}

/// Two passes with images of two sizes go through one network. The gradients are the sums of those of each
/// pass alone.
#[test]
fn passes_of_two_sizes_add_up() {
    let network = small_network(DType::F64);
    let head = {
        let mut config = MlpConfig::new(64, 5, 4);
        config.dtype = DType::F64;
        Mlp::new("head", &config, 0, 0).unwrap()
    };
    let (large, small) = (tensor(&[3, 16, 16, 3], 0, DType::F64), tensor(&[5, 8, 8, 3], 1, DType::F64));
    let alone = [&large, &small].map(|x| through(&network, &head, x).unwrap());
    let mut one = network.forward(&large, Mode::Train).unwrap();
    let mut other = network.forward(&small, Mode::Train).unwrap();
    let rows = |output: &mut Output| {
        output
            .through(&output.pooled.clone(), |tape, x| {
                let y = head.forward(tape, x, Mode::Train)?;
                tape.l2_normalize(&y)
            })
            .unwrap()
    };
    let (y_large, y_small) = (rows(&mut one), rows(&mut other));
    one.join(&mut other);
    let loss = (weighted(&y_large).unwrap() + weighted(&y_small).unwrap()).unwrap();
    let gradients = one.backward(&loss).unwrap();
    let mut parameters = network.parameters();
    parameters.extend(head.parameters());
    for (name, parameter) in parameters.iter().filter(|(name, _)| !name.starts_with("linear")) {
        let of = |store: &GradStore| values(store.get(parameter).unwrap());
        let (got, first, second) = (of(&gradients), of(&alone[0].1), of(&alone[1].1));
        for ((got, first), second) in got.iter().zip(first).zip(second) {
            assert!((got - first - second).abs() <= 1e-12 * got.abs().max(1.0), "{name}");
        }
    }
}

/// A loss need not depend on a head's rows alone: an output that enters a head and also the loss itself gets
/// both gradients.
#[test]
fn an_output_used_by_a_head_and_by_the_loss_gets_both_gradients() {
    let network = small_network(DType::F64);
    let x = tensor(&[4, 8, 8, 3], 0, DType::F64);
    let mut config = MlpConfig::new(6, 5, 4);
    config.dtype = DType::F64;
    let head = Mlp::new("head", &config, 0, 0).unwrap();
    let gradient = |with_head: f64, direct: f64| {
        let mut output = network.forward(&x, Mode::Train).unwrap();
        let y =
            output.through(&output.embedding.clone(), |tape, x| head.forward(tape, x, Mode::Train)).unwrap();
        let loss = ((weighted(&y).unwrap() * with_head).unwrap()
            + (weighted(&output.embedding).unwrap() * direct).unwrap())
        .unwrap();
        let gradients = output.backward(&loss).unwrap();
        let bias = network.parameters().into_iter().find(|(name, _)| name == "linear.bias").unwrap().1;
        values(gradients.get(&bias).unwrap())
    };
    let (both, head_alone, direct_alone) = (gradient(1.0, 1.0), gradient(1.0, 0.0), gradient(0.0, 1.0));
    for ((both, one), other) in both.iter().zip(head_alone).zip(direct_alone) {
        assert!((both - one - other).abs() < 1e-12);
    }
}

/// A pass cannot continue from a tensor that candle computed from an output, because its gradient would be
/// lost.
#[test]
fn a_pass_goes_on_from_outputs_alone() {
    let network = small_network(DType::F32);
    let mut output = network.forward(&tensor(&[4, 8, 8, 3], 0, DType::F32), Mode::Train).unwrap();
    let doubled = (&output.pooled * 2.0).unwrap();
    let error = output.through(&doubled, |_, x| Ok(x.clone())).unwrap_err().to_string();
    assert!(error.contains("expected an output of this pass"), "{error}");
}

#[test]
fn a_pass_without_gradient_gives_the_same_rows_and_moves_its_own_statistics() {
    let network = small_network(DType::F32);
    let copy = Momentum::of(&network).unwrap();
    let x = tensor(&[4, 8, 8, 3], 0, DType::F32);
    let statistics = |network: &Network| -> Vec<Vec<f64>> {
        let state = network.state_dict().unwrap();
        state.iter().filter(|(name, _)| name.contains("running")).map(|(_, tensor)| values(tensor)).collect()
    };
    let before = statistics(&network);
    assert_eq!(statistics(copy.module()), before);
    let trained = network.forward(&x, Mode::Train).unwrap();
    assert_ne!(statistics(&network), before);
    assert_eq!(statistics(copy.module()), before, "the copy has its own");
    let mut followed = copy.module().forward(&x, Mode::TrainWithoutGradient).unwrap();
    assert_eq!(values(&followed.embedding), values(&trained.embedding));
    assert_eq!(statistics(copy.module()), statistics(&network));
    let error = followed.backward(&followed.embedding.sum_all().unwrap()).unwrap_err().to_string();
    assert!(error.contains("recorded no gradients"), "{error}");
}

#[test]
fn a_copy_follows_by_its_momentum() {
    let of = |seed| {
        let mut config = MlpConfig::new(3, 4, 2);
        config.dtype = DType::F64;
        Mlp::new("head", &config, seed, 0).unwrap()
    };
    let (start, other) = (of(0), of(1));
    let copy = Momentum::of(&start).unwrap();
    copy.follow(&other, 0.75).unwrap();
    for (((_, got), (_, kept)), (_, towards)) in
        copy.module().parameters().iter().zip(start.parameters()).zip(other.parameters())
    {
        for ((got, kept), towards) in values(got).iter().zip(values(&kept)).zip(values(&towards)) {
            assert!((got - (0.75 * kept + 0.25 * towards)).abs() < 1e-15);
        }
    }
    assert!(copy.follow(&other, 1.5).unwrap_err().to_string().contains("1.5"));
    let larger = Mlp::new("head", &MlpConfig::new(3, 5, 2), 0, 0).unwrap();
    assert!(copy.follow(&larger, 0.5).unwrap_err().to_string().contains("cannot follow"));
    // With a momentum of 0, the copy has the same weights.
    copy.follow(&other, 0.0).unwrap();
    for ((_, got), (_, want)) in copy.module().parameters().iter().zip(other.parameters()) {
        assert_eq!(values(got), values(&want));
    }
}
