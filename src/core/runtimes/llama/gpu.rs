//! How much of a model is on the GPU, as `llama-server` tells it.

use crate::core::gpu::GpuParts;

/// Reads the layers from a log: `offloaded 20/33 layers to GPU`, which a program without a GPU writes, too; only that
/// has no buffer elsewhere than in the memory of the CPU. New versions write neither by default.
pub(super) fn in_log(log: &str) -> Option<GpuParts> {
    let buffers: Vec<&str> = log
        .lines()
        .filter_map(|line| line.split_once(" model buffer size = ").map(|(start, _)| start))
        .collect();
    let layers = log.lines().find_map(|line| {
        let (_, layers) = line.split_once("offloaded ")?;
        let (on_gpu, all) = layers.strip_suffix(" layers to GPU")?.split_once('/')?;
        Some(GpuParts { on_gpu: on_gpu.parse().ok()?, all: all.parse().ok()? })
    });
    let has_gpu = buffers.iter().any(|start| !is_host(start.split_whitespace().last().unwrap_or_default()));
    match layers {
        Some(layers) if !buffers.is_empty() => {
            Some(GpuParts { on_gpu: if has_gpu { layers.on_gpu } else { 0 }, ..layers })
        }
        _ => None,
    }
}

/// Returns whether a buffer is in the memory of the CPU: `CPU`, `CPU_Mapped`, `CUDA_Host`.
fn is_host(buffer: &str) -> bool {
    buffer.starts_with("CPU") || buffer.ends_with("_Host")
}

/// Reads the output of `--list-devices`.
pub(super) fn has_device(printed: &str) -> Option<bool> {
    let mut lines = printed.lines().map(str::trim).skip_while(|line| *line != "Available devices:").skip(1);
    lines.next().map(|first| first != "(none)")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As b11434 writes it on a machine without a GPU, with `-lv 4`.
    const CPU_ONLY: &str = "\
0.00.009.934 I load_tensors: offloading output layer to GPU
0.00.009.957 I load_tensors: offloaded 2/2 layers to GPU
0.00.009.969 I load_tensors:   CPU_Mapped model buffer size =     0.33 MiB
";

    #[test]
    fn layers_without_gpu_buffers_are_on_the_cpu() {
        assert_eq!(in_log(CPU_ONLY), Some(GpuParts { on_gpu: 0, all: 2 }));
        let with = |buffer: &str| format!("load_tensors: offloaded 20/33 layers to GPU\n{buffer}\n");
        for (buffer, on_gpu) in [
            ("load_tensors:        CUDA0 model buffer size =  2341.20 MiB", 20),
            (
                "load_tensors:   CPU_Mapped model buffer size =   315.30 MiB\nload_tensors: MTL0 model buffer size = 2 MiB",
                20,
            ),
            ("load_tensors:    CUDA_Host model buffer size =   315.30 MiB", 0),
        ] {
            assert_eq!(in_log(&with(buffer)), Some(GpuParts { on_gpu, all: 33 }), "{buffer}");
        }
    }

    #[test]
    fn a_log_without_buffers_tells_nothing() {
        for log in [
            "",
            "load_tensors: offloaded 20/33 layers to GPU\n",
            "load_tensors: CPU model buffer size = 1 MiB\n",
        ] {
            assert_eq!(in_log(log), None, "{log}");
        }
    }

    #[test]
    fn devices_are_listed_or_none() {
        assert_eq!(has_device("Available devices:\n  (none)\n"), Some(false));
        assert_eq!(has_device("load_backend: x\nAvailable devices:\n  CUDA0: NVIDIA (24 GiB)\n"), Some(true));
        assert_eq!(has_device("error: unknown argument"), None);
    }
}
