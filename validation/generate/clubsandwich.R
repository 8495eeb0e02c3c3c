# Cluster-robust covariances of the fixed effects of lme4 fits, from clubSandwich.
# MLMED_DATA=FOLDER_WITH_THE_DATA Rscript validation/generate/clubsandwich.R [OUT_DIR]
# (default validation/reference/robust: the folder above it holds fits only)
suppressMessages({
  library(lme4)
  library(clubSandwich)
  library(jsonlite)
})

TYPES <- c("CR0", "CR1", "CR2")
MODELS <- list(
  list(name = "ml_sim_m_x", data = "ml_sim", formula = "m ~ x + (1 + x | id)"),
  list(name = "ml_sim_y_mx", data = "ml_sim", formula = "y ~ m + x + (1 + m + x | id)"),
  list(name = "sleepstudy", data = "sleepstudy", formula = "Reaction ~ Days + (1 + Days | Subject)")
)
SETTINGS <- 'lmerControl("bobyqa", optCtrl = list(rhobeg = 0.02, rhoend = 1e-10, maxfun = 1e6), calc.derivs = FALSE)'

# A second search from where the first one stopped: rhoend bounds the last step, not the distance to the optimum.
fit_tight <- function(formula, data) {
  control <- eval(parse(text = SETTINGS))
  first <- lmer(formula, data, REML = TRUE, control = control)
  lmer(formula, data, REML = TRUE, control = control, start = getME(first, "theta"))
}

matrix_of <- function(V) unname(as.matrix(V))

describe <- function(model) {
  data <- read.csv(file.path(Sys.getenv("MLMED_DATA"), paste0(model$data, ".csv")))
  fit <- fit_tight(as.formula(model$formula), data)
  robust <- lapply(setNames(TYPES, TYPES), function(type) matrix_of(vcovCR(fit, type = type)))
  varcorr <- as.data.frame(VarCorr(fit))[, c("grp", "var1", "var2", "vcov")]
  errors <- paste(signif(sqrt(diag(robust$CR2)), 8), collapse = " ")
  cat(sprintf("%-12s %.9f  CR2 se: %s\n", model$name, logLik(fit), errors))
  c(model, list(
    method = "REML", calls = c(sprintf("lmer(%s)", model$formula), sprintf('vcovCR(fit, type = "%s")', TYPES)),
    logLik = as.numeric(logLik(fit)), fixef = as.list(fixef(fit)), varcorr = varcorr,
    vcov = matrix_of(vcov(fit)), robust = robust
  ))
}

main <- function(out) {
  packages <- c("clubSandwich", "lme4")
  versions <- paste(packages, vapply(packages, function(p) packageDescription(p)$Version, ""))
  result <- list(
    software = sprintf("%s, R %s", paste(versions, collapse = ", "), getRversion()), date = format(Sys.Date()),
    generator = "validation/generate/clubsandwich.R", optimizer = paste(SETTINGS, "twice"),
    fits = lapply(MODELS, describe)
  )
  dir.create(out, showWarnings = FALSE, recursive = TRUE)
  write_json(result, file.path(out, "clubsandwich.json"), digits = NA, auto_unbox = TRUE, pretty = TRUE)
}

main(c(commandArgs(TRUE), file.path("validation", "reference", "robust"))[1])
