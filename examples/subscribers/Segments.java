import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.*;

/**
 * As segments.py: keeps a copy of every account's segment, and acts upon each change once.
 *
 *   mvn dependency:copy-dependencies -DoutputDirectory=jars && java -cp 'jars/*' Segments.java out/accounts.csv
 */
public class Segments {
    record Told(String segment, long sequence) {}

    static final Map<String, Told> copy = new HashMap<>();
    static final ObjectMapper json = new ObjectMapper();

    static KafkaConsumer<byte[], byte[]> consumer(String isolationLevel) {
        var servers = System.getenv().getOrDefault("RESEGMENT_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092");
        Map<String, Object> settings = Map.of("bootstrap.servers", servers, "isolation.level", isolationLevel);
        return new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    static List<TopicPartition> places(Consumer<?, ?> consumer, String topic) {
        var name = System.getenv().getOrDefault("RESEGMENT_TOPIC_PREFIX", "") + topic;
        return consumer.partitionsFor(name).stream().map(of -> new TopicPartition(name, of.partition())).toList();
    }

    /** The changes that were not seen before; the copy has them then. */
    static List<JsonNode> newOnes(Consumer<byte[], byte[]> consumer) throws Exception {
        var found = new ArrayList<JsonNode>();
        for (var polled : consumer.poll(Duration.ofSeconds(1))) {
            var change = json.readTree(polled.value());
            var account = change.get("account_id").asText();
            var sequence = change.get("sequence").asLong();
            if (!copy.containsKey(account) || sequence > copy.get(account).sequence()) {
                copy.put(account, new Told(change.get("current_segment").asText(), sequence));
                found.add(change);
            }
        }
        return found;
    }

    public static void main(String[] arguments) throws Exception {
        var accounts = Path.of(arguments[0]);
        try (var committed = consumer("read_committed"); var written = consumer("read_uncommitted")) {
            var latest = places(committed, "segments");
            // In this order: what is before `begins` was written before `ends`. Written, not committed: for a moment a
            // transaction may be seen in one topic and not yet in the other.
            var begins = committed.endOffsets(places(committed, "segment-changes"));
            var ends = written.endOffsets(latest);
            committed.assign(latest);
            committed.seekToBeginning(latest);
            while (latest.stream().anyMatch(place -> committed.position(place) < ends.get(place))) newOnes(committed);
            committed.assign(begins.keySet());
            begins.forEach(committed::seek);
            while (true) {
                var found = newOnes(committed);
                for (var change : found) if (!change.get("mode").asText().equals("silent")) act(change);
                if (found.isEmpty() && Files.exists(accounts) && isAsExported(accounts)) return;
            }
        }
    }

    static void act(JsonNode change) {
        var way = change.get("previous_segment").asText() + " -> " + change.get("current_segment").asText();
        System.out.println(change.get("account_id").asText() + "\t" + change.get("sequence") + "\t" + way);
    }

    static boolean isAsExported(Path accounts) throws Exception {
        var lines = Files.readAllLines(accounts);
        var columns = List.of(lines.get(0).split(","));
        var exported = new HashMap<String, Told>();
        for (var line : lines.subList(1, lines.size())) {
            var cells = line.split(",(?=([^\"]*\"[^\"]*\")*[^\"]*$)", -1); // the name of a population may hold a comma
            var told = new Told(cells[columns.indexOf("segment")], Long.parseLong(cells[columns.indexOf("sequence")]));
            if (told.sequence() > 0) exported.put(cells[columns.indexOf("account_id")], told);
        }
        System.out.println(copy.size() + " accounts; as exported: " + copy.equals(exported));
        return copy.equals(exported);
    }
}
