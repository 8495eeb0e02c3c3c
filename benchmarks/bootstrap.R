# Case bootstrap of the stacked model with lme4: seconds a refit, as JSON.
# Rscript bootstrap.R CSV REPLICATES SEED
suppressMessages(library(lme4))
source(file.path(dirname(sub("--file=", "", grep("--file=", commandArgs(FALSE), value = TRUE)[1])), "stack.R"))

arguments <- commandArgs(trailingOnly = TRUE)
d <- read.csv(arguments[1])
replicates <- as.integer(arguments[2])
set.seed(as.integer(arguments[3]))
terms <- "sm + smx + sy + sym + syx"
formula <- as.formula(sprintf("z ~ 0 + %s + (0 + %s | id) + (0 + sm | fid)", terms, terms))
control <- lmerControl(check.nobs.vs.nRE = "ignore")
clusters <- split(d, d$id)
times <- numeric(replicates)
indirect <- numeric(replicates)
for (k in seq_len(replicates)) {
  drawn <- clusters[sample(length(clusters), replace = TRUE)]
  rows <- do.call(rbind, Map(function(one, new) transform(one, id = new), drawn, seq_along(drawn)))
  stacked <- stack_equations(rows)
  times[k] <- system.time(fit <- suppressMessages(suppressWarnings(lmer(formula, stacked, control = control))))[["elapsed"]]
  b <- fixef(fit)
  indirect[k] <- b[["smx"]] * b[["sym"]] + VarCorr(fit)$id["smx", "sym"]
}
cat(sprintf('{"seconds": %.6f, "sd_indirect": %.6f, "lme4": "%s"}\n', median(times), sd(indirect), packageVersion("lme4")))
