// Classifies what is typed: ?bundle=PATH names another bundle, ?dtype=int8 another of its variants.

const LIBRARY = "@huggingface/transformers"; // index.html says where it is
const WASM = "./node_modules/onnxruntime-web/dist/";

const text = document.querySelector("#text");
const list = document.querySelector("#labels");
const status = document.querySelector("#status");
const failure = document.querySelector("#error");

/** The JSON file of this address. */
async function json(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`${address} cannot be read: ${answer.status}`);
  return answer.json();
}

/** The data files that a variant needs, as ONNX Runtime wants to have them named. */
async function dataFiles(bundle, dtype) {
  const { variants } = await json(`${bundle}/trimexport.json`);
  const graph = dtype === "fp32" ? "onnx/model.onnx" : `onnx/model_${dtype}.onnx`;
  const variant = variants.find(({ files }) => files.includes(graph));
  if (!variant) throw new Error(`${bundle} has no ${graph}`);
  const names = variant.files.filter((name) => name.endsWith("_data"));
  return names.map((name) => ({ path: name.replace("onnx/", ""), data: name }));
}

/** A bundle as the text-classification pipeline, and its labels in their order. */
async function load(bundle, dtype) {
  const { AutoTokenizer, PreTrainedModel, TextClassificationPipeline, env } = await import(LIBRARY);
  env.allowLocalModels = true; // that is: from this server
  env.allowRemoteModels = false;
  env.useBrowserCache = false; // it would keep a bundle that was built again since
  env.backends.onnx.wasm.wasmPaths = new URL(WASM, document.baseURI).href;
  const tokenizer = await AutoTokenizer.from_pretrained(bundle);
  const model = await PreTrainedModel.from_pretrained(bundle, {
    dtype,
    session_options: { externalData: await dataFiles(bundle, dtype) },
  });
  const task = "text-classification";
  const classify = new TextClassificationPipeline({ task, tokenizer, model });
  await classify(""); // the first run takes longer
  return { classify, labels: Object.values(model.config.id2label) };
}

/** One row of the list: the label, its bar, its number. */
function row(label) {
  const item = document.createElement("li");
  const name = document.createElement("span");
  const bar = document.createElement("meter");
  const number = document.createElement("output");
  name.textContent = label;
  bar.setAttribute("aria-label", label);
  item.append(name, bar, number);
  list.append(item);
  return (probability, best) => {
    bar.value = probability;
    number.textContent = `${(100 * probability).toFixed(1)} %`;
    item.classList.toggle("best", best);
  };
}

function fail(error) {
  status.textContent = "";
  list.setAttribute("aria-busy", "false");
  failure.textContent = `This does not work: ${error.message ?? error}`;
  failure.hidden = false;
  console.error(error);
}

/** Classify the text, and once more if it changed meanwhile, until it is the one on display. */
function follow({ classify, labels }, dtype) {
  const rows = new Map(labels.map((label) => [label, row(label)]));
  let running = false;
  return async () => {
    list.setAttribute("aria-busy", "true");
    if (running) return;
    running = true;
    try {
      let shown;
      while (shown !== text.value) {
        shown = text.value;
        const start = performance.now();
        const found = await classify(shown, { top_k: null });
        const taken = performance.now() - start;
        failure.hidden = true;
        found.forEach(({ label, score }, rank) => rows.get(label)(score, rank === 0));
        status.textContent = `${taken.toFixed(1)} ms, ${dtype}`;
      }
      list.setAttribute("aria-busy", "false");
    } catch (error) {
      fail(error);
    } finally {
      running = false;
    }
  };
}

async function main() {
  const asked = new URLSearchParams(location.search);
  const address = new URL(asked.get("bundle") ?? "bundle", document.baseURI);
  if (address.origin !== location.origin) throw new Error("the bundle has to be on this server");
  const bundle = address.pathname.replace(/\/$/, "");
  const config = await json(`${bundle}/config.json`);
  const dtype = asked.get("dtype") ?? config["transformers.js_config"]?.dtype ?? "fp32";
  const update = follow(await load(bundle, dtype), dtype);
  text.disabled = false;
  text.addEventListener("input", update);
  await update();
}

main().catch(fail);
