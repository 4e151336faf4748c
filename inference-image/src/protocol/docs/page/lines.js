// Commands to copy that call a model: complete, with the page's own address, and run by a test.

const NUMPY = {
  BOOL: "bool_", UINT8: "uint8", UINT16: "uint16", UINT32: "uint32", UINT64: "uint64",
  INT8: "int8", INT16: "int16", INT32: "int32", INT64: "int64",
  // tritonclient converts float32 to BF16.
  FP16: "float16", BF16: "float32", FP32: "float32", FP64: "float64", BYTES: "object_",
};
const SIZES = { BOOL: 1, UINT8: 1, INT8: 1, UINT16: 2, INT16: 2, FP16: 2, BF16: 2, UINT32: 4, INT32: 4, FP32: 4, UINT64: 8, INT64: 8, FP64: 8 };

/** A tensor of that many elements is written out. */
const SHORT = 16;
/** A text that is also a number, for models that make one of it. */
const TEXT = '"0"';

const count = (tensor) => tensor.shape.reduce((product, size) => product * size, 1);
const isHalf = (tensor) => tensor.datatype === "FP16" || tensor.datatype === "BF16";

/** As a string of JSON and of Python; characters that are not seen are escaped. */
const quoted = (text) =>
  JSON.stringify(text).replace(
    /[\u007f-\u009f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );

/** As one word of a shell. */
const word = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** Titles and texts for the model that is served below `base`; with a token, the commands send `$TOKEN`. */
export function lines(base, model, withToken) {
  const call = { base, model, withToken, name: encodeURIComponent(model.name) };
  const made = [];
  if (model.classifies) {
    made.push({ title: "An image with curl", text: imageCurl(call) });
    made.push({ title: "An image with Python", text: imagePython(call) });
  }
  made.push({ title: "Tensors with curl", text: tensorCurl(call) });
  const halves = [...model.inputs, ...model.outputs].some(isHalf);
  // They have no JSON form.
  if (!halves) made.push({ title: "Tensors with Python", text: tensorPython(call) });
  made.push({ title: "Tensors with tritonclient", text: triton(call) });
  return made;
}

const curlToken = ({ withToken }) => (withToken ? ['-H "Authorization: Bearer $TOKEN"'] : []);
const pythonHeaders = ({ withToken }) => (withToken ? ', headers={"Authorization": "Bearer " + os.environ["TOKEN"]}' : "");
const imports = ({ withToken }, ...names) => [...(withToken ? ["import os", ""] : []), ...names].join("\n");

function imageCurl(call) {
  const url = word(`${call.base}v1/models/${call.name}:classify?top_k=1`);
  return ["curl --data-binary @image.jpg", ...curlToken(call), url].join(" \\\n  ");
}

function imagePython(call) {
  return `${imports(call, "import requests")}

with open("image.jpg", "rb") as image:
    response = requests.post(
        ${quoted(`${call.base}v1/models/${call.name}:classify`)},
        data=image, timeout=30${pythonHeaders(call)},
    )
answer = response.json()
if not response.ok:
    raise SystemExit(answer["error"])
for prediction in answer["predictions"]:
    print(prediction["probability"], prediction["label"])
`;
}

/** Zeros: written out where they are few, else as bytes after the JSON. */
function tensorCurl(call) {
  const { exampleInputs: inputs, outputs } = call.model;
  const written = (tensor) => !isHalf(tensor) && (tensor.datatype === "BYTES" || count(tensor) <= SHORT);
  const bytes = inputs.map((tensor) => (written(tensor) ? 0 : count(tensor) * SIZES[tensor.datatype]));
  const described = inputs.map((tensor, index) => {
    const value = written(tensor)
      ? `"data":[${Array(count(tensor)).fill(zero(tensor)).join(",")}]`
      : `"parameters":{"binary_data_size":${bytes[index]}}`;
    return `{"name":${quoted(tensor.name)},"datatype":"${tensor.datatype}","shape":[${tensor.shape}],${value}}`;
  });
  const binary = outputs.some(isHalf) ? ',"parameters":{"binary_data_output":true}' : "";
  const request = `{"inputs":[${described.join(",")}]${binary}}`;
  const url = word(`${call.base}v2/models/${call.name}/infer`);
  const rest = [...curlToken(call), ...(binary ? ["--output answer.bin"] : []), url];
  const total = bytes.reduce((sum, size) => sum + size, 0);
  if (total === 0) return [`curl --data-binary ${word(request)}`, ...rest].join(" \\\n  ");
  const length = new TextEncoder().encode(request).length;
  const body = `{ printf %s ${word(request)}\n  head -c ${total} /dev/zero\n} | curl --data-binary @-`;
  return [body, `-H 'Inference-Header-Content-Length: ${length}'`, ...rest].join(" \\\n  ");
}

function zero({ datatype }) {
  return { BYTES: TEXT, BOOL: "false" }[datatype] ?? "0";
}

const array = ({ shape, datatype }, text) =>
  datatype === "BYTES"
    ? `np.full([${shape.join(", ")}], ${text}, dtype=np.object_)`
    : `np.zeros([${shape.join(", ")}], dtype=np.${NUMPY[datatype]})`;

/** Names of variables; those of tensors may be no names in Python. */
const variables = (tensors) => tensors.map((_, index) => (tensors.length === 1 ? "array" : `array${index + 1}`));

function tensorPython(call) {
  const inputs = call.model.exampleInputs;
  const names = variables(inputs);
  const arrays = inputs.map((tensor, index) => `${names[index]} = ${array(tensor, TEXT)}`);
  const described = inputs.map((tensor, index) => `    {
        "name": ${quoted(tensor.name)}, "datatype": "${tensor.datatype}",
        "shape": ${names[index]}.shape, "data": ${names[index]}.ravel().tolist(),
    },`);
  return `${imports(call, "import numpy as np", "import requests")}

${arrays.join("\n")}
inputs = [
${described.join("\n")}
]
response = requests.post(
    ${quoted(`${call.base}v2/models/${call.name}/infer`)},
    json={"inputs": inputs}, timeout=30${pythonHeaders(call)},
)
answer = response.json()
if not response.ok:
    raise SystemExit(answer["error"])
for output in answer["outputs"]:
    print(output["name"])
    print(np.reshape(output["data"], output["shape"]))
`;
}

function triton(call) {
  const { exampleInputs: inputs, outputs } = call.model;
  const names = variables(inputs);
  const [, scheme, address] = /^(https?):\/\/(.*?)\/?$/.exec(call.base);
  const made = inputs.map((tensor, index) => `${names[index]} = ${array(tensor, `b${TEXT}`)}
inputs.append(
    triton.InferInput(${quoted(tensor.name)}, [${tensor.shape.join(", ")}], "${tensor.datatype}")
)
inputs[-1].set_data_from_numpy(${names[index]})`);
  const shown = outputs.map((output) => `print(answer.as_numpy(${quoted(output.name)}))`);
  return `${imports(call, "import numpy as np", "import tritonclient.http as triton")}

client = triton.InferenceServerClient(${quoted(address)}${scheme === "https" ? ", ssl=True" : ""})
inputs = []
${made.join("\n")}
answer = client.infer(${quoted(call.model.name)}, inputs${pythonHeaders(call)})
${shown.join("\n")}
`;
}
