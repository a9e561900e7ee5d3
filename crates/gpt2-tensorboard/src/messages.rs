//! The parts that are written here of TensorFlow's messages: `event.proto`, `summary.proto`, `tensor.proto` and
//! `tensor_shape.proto` in `tensorflow/core`. By hand, since so few messages do not need a compiler of protocol buffers
//! at build time.

/// `DataType.DT_STRING` of `types.proto`.
const DT_STRING: i32 = 7;

/// `DataClass.DATA_CLASS_TENSOR` of `summary.proto`.
const DATA_CLASS_TENSOR: i32 = 2;

/// `SessionLog.SessionStatus.START` of `event.proto`.
const SESSION_START: i32 = 1;

/// `event.proto`: one record of an event file.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    pub(crate) wall_time: f64,
    #[prost(int64, tag = "2")]
    pub(crate) step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    pub(crate) what: Option<What>,
}

/// What an event holds.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum What {
    /// The first event of a file.
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

/// `event.proto`: that a program starts to write, and after which step.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SessionLog {
    #[prost(int32, tag = "1")]
    pub(crate) status: i32,
}

impl SessionLog {
    pub(crate) fn start() -> Self {
        Self { status: SESSION_START }
    }
}

/// `summary.proto`: values of a step.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Summary {
    #[prost(message, repeated, tag = "1")]
    pub(crate) value: Vec<Value>,
}

/// `summary.proto`: a value under a tag.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Value {
    #[prost(string, tag = "1")]
    pub(crate) tag: String,
    #[prost(message, optional, tag = "9")]
    pub(crate) metadata: Option<SummaryMetadata>,
    #[prost(oneof = "Content", tags = "2, 8")]
    pub(crate) content: Option<Content>,
}

/// What a value is.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Content {
    #[prost(float, tag = "2")]
    SimpleValue(f32),
    #[prost(message, tag = "8")]
    Tensor(Tensor),
}

/// `summary.proto`: which of TensorBoard's plugins shows a value.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SummaryMetadata {
    #[prost(message, optional, tag = "1")]
    pub(crate) plugin_data: Option<PluginData>,
    #[prost(int32, tag = "4")]
    pub(crate) data_class: i32,
}

/// `summary.proto`: a plugin, and what it wants to know. The text plugin's own message is empty in its version 0.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PluginData {
    #[prost(string, tag = "1")]
    pub(crate) plugin_name: String,
}

/// `tensor.proto`: a tensor of strings.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Tensor {
    #[prost(int32, tag = "1")]
    pub(crate) dtype: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) shape: Option<TensorShape>,
    #[prost(bytes = "vec", repeated, tag = "8")]
    pub(crate) string_val: Vec<Vec<u8>>,
}

/// `tensor_shape.proto`: without dimensions, the shape of a single value.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TensorShape {}

impl Value {
    pub(crate) fn scalar(tag: &str, value: f32) -> Self {
        Self {
            tag: tag.to_owned(),
            metadata: None,
            content: Some(Content::SimpleValue(value)),
        }
    }

    /// Text, as the text plugin of TensorBoard 2 wants it (`tensorboard/plugins/text/summary_v2.py`).
    pub(crate) fn text(tag: &str, text: &str) -> Self {
        Self {
            tag: tag.to_owned(),
            metadata: Some(SummaryMetadata {
                plugin_data: Some(PluginData {
                    plugin_name: "text".to_owned(),
                }),
                data_class: DATA_CLASS_TENSOR,
            }),
            content: Some(Content::Tensor(Tensor {
                dtype: DT_STRING,
                shape: Some(TensorShape {}),
                string_val: vec![text.as_bytes().to_vec()],
            })),
        }
    }
}
